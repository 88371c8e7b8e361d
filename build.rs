//! Compiles `proto/` to Rust with protox, so that building needs no `protoc`; and compresses the files of the pages, so that
//! nothing has to be compressed while it is served.

use std::{env, fs, io::Write, path::Path};

use flate2::{Compression, write::GzEncoder};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/taskcast/v1");
    let files = ["event", "task", "messages"].map(|name| format!("proto/taskcast/v1/{name}.proto"));
    let descriptors = protox::compile(files, ["proto"])?;
    prost_build::Config::new().compile_fds(descriptors)?;
    compress("src/http/page", "")?;
    compress("clients/js/dist", "")?;
    compress("proto", ".json")
}

/// Puts each file of a folder with such an end, as gzip, into `page/` of the output. Where the folder is missing, whoever embeds
/// it will say so.
fn compress(folder: &str, end: &str) -> Result<(), Box<dyn std::error::Error>> {
    if end.is_empty() {
        println!("cargo:rerun-if-changed={folder}");
    }
    let target = Path::new(&env::var("OUT_DIR")?).join("page");
    fs::create_dir_all(&target)?;
    let Ok(files) = fs::read_dir(folder) else { return Ok(()) };
    for file in files {
        let path = file?.path();
        if !path.is_file() || !path.to_string_lossy().ends_with(end) {
            continue;
        }
        println!("cargo:rerun-if-changed={}", path.display());
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        // The head of such a file holds no time and no name, so the same source makes the same binary.
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&fs::read(&path)?)?;
        fs::write(target.join(format!("{name}.gz")), encoder.finish()?)?;
    }
    Ok(())
}
