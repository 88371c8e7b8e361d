//! Compiles `proto/` to Rust with protox, so that building needs no `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/taskcast/v1");
    let files = ["event", "task", "messages"].map(|name| format!("proto/taskcast/v1/{name}.proto"));
    let descriptors = protox::compile(files, ["proto"])?;
    prost_build::Config::new().compile_fds(descriptors)?;
    Ok(())
}
