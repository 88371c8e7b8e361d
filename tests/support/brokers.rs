//! Real brokers for tests: `redis-server` and `rabbitmq-server` on free ports, with data in a folder of their own. A
//! test can kill, restart and pause them. A missing program fails the test with the words to install it.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    sync::OnceCell,
};

const REDIS_READY: Duration = Duration::from_secs(20);
const RABBIT_READY: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);
const SENTINEL_CONFIGURATION: &str = "sentinel.conf";

/// A port that was free a moment ago and that this process hands out once. Below the range from which the system takes
/// the near end of connections, or one of those could take it before it is listened on.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let candidate = |_| {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Test binaries that run at the same time begin in different places.
        (10_000 + (std::process::id().wrapping_mul(37) + number) % 20_000) as u16
    };
    (0..20_000).map(candidate).find(|port| is_free(*port)).expect("a free port")
}

/// Whether nobody listens there. Bound and never listened on: a process that is forked meanwhile holds a copy of the
/// socket until it runs its program, and a copy that listened would keep the port taken after this said that it is free.
pub fn is_free(port: u16) -> bool {
    let probe = TcpSocket::new_v4().expect("a socket");
    probe.set_reuseaddr(true).expect("an option that every system has");
    probe.bind(([127, 0, 0, 1], port).into()).is_ok()
}

/// A folder and the processes that work in it. A small shell holds the other end of a pipe; when the pipe closes,
/// because this is dropped or because the test process is gone, however it went, it kills them, the latest first, and
/// removes the folder.
pub struct Kennel {
    pub folder: PathBuf,
    leash: Option<ChildStdin>,
    warden: Child,
}

const WARDEN: &str = r#"
groups=
while read -r group; do groups="$group $groups"; done
for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
for attempt in 1 2 3 4 5 6 7 8 9 10; do rm -rf "$1" 2>/dev/null && break; sleep 0.1; done
"#;

impl Kennel {
    pub fn new(what: &str) -> Self {
        let folder = std::env::temp_dir().join(super::unique(&format!("taskcast-{what}")));
        fs::create_dir(&folder).expect("a folder for the broker's data");
        let mut warden = Command::new("sh")
            .args(["-c", WARDEN, "warden"])
            .arg(&folder)
            // Not in the terminal's group: an interrupt ends the test, and then this has work to do.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("sh runs");
        let leash = warden.stdin.take();
        Self { folder, leash, warden }
    }

    /// Starts a program in a process group of its own, its output in a file here.
    pub fn start(&mut self, program: &Path, log: &str, prepare: impl FnOnce(&mut Command)) -> Child {
        let output = File::options().create(true).append(true).open(self.folder.join(log)).expect("a log file");
        let mut command = Command::new(program);
        command.process_group(0).stdin(Stdio::null());
        command.stdout(output.try_clone().expect("a second handle")).stderr(output);
        prepare(&mut command);
        let child = command.spawn().unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
        let leash = self.leash.as_mut().expect("held until dropped");
        writeln!(leash, "{}", child.id()).expect("the warden listens");
        child
    }

    pub fn log(&self, log: &str) -> String {
        fs::read_to_string(self.folder.join(log)).unwrap_or_default()
    }
}

impl Drop for Kennel {
    fn drop(&mut self) {
        self.leash = None;
        let _ = self.warden.wait();
    }
}

pub fn signal(signal: &str, target: &str) {
    let sent = Command::new("kill").args([signal, "--", target]).stderr(Stdio::null()).status();
    sent.expect("kill runs");
}

/// Ends a process group at once, as a power cut would.
pub fn kill_group(child: &mut Child) {
    signal("-KILL", &format!("-{}", child.id()));
    let _ = child.wait();
}

pub fn find_program(candidates: &[&str], install: &str) -> PathBuf {
    look_for(candidates).unwrap_or_else(|| panic!("{} is missing: {install}", candidates.join(" or ")))
}

/// The first of these programs that is there.
pub fn look_for(candidates: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = candidates.iter().flat_map(|candidate| {
        // An absolute candidate replaces the folder it is joined to.
        std::env::split_paths(&path).map(move |folder| folder.join(candidate)).filter(|file| file.is_file())
    });
    found.next()
}

/// A certificate authority's PEM, a certificate and key of 127.0.0.1 and localhost signed by it, and those of a client who
/// is called guest.
pub struct Certificates {
    pub authority: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub client: taskcast::tls::Files,
    _folder: tempfile::TempDir,
}

impl Certificates {
    pub fn make() -> Self {
        let program = find_program(&["openssl"], "install openssl (apt-get install openssl)");
        let folder = tempfile::tempdir().expect("a folder for certificates");
        let at = |name: &str| folder.path().join(name);
        let openssl = |arguments: &str| {
            let output = Command::new(&program).args(arguments.split(' ')).current_dir(folder.path()).output();
            let output = output.expect("openssl runs");
            assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(&format!("req -x509 {new_key} -keyout ca.key -out ca.pem -days 2 -subj /CN=taskcast-tests"));
        openssl(&format!("req {new_key} -keyout server.key -out server.csr -subj /CN=localhost"));
        fs::write(at("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").expect("a file");
        openssl(
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem",
        );
        openssl(&format!("req {new_key} -keyout client.key -out client.csr -subj /CN=guest"));
        fs::write(at("usage"), "extendedKeyUsage=clientAuth\n").expect("a file");
        openssl(
            "x509 -req -in client.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile usage -out client.pem",
        );
        Self {
            authority: at("ca.pem"),
            certificate: at("server.pem"),
            key: at("server.key"),
            client: taskcast::tls::Files { certificate: at("client.pem"), key: at("client.key") },
            _folder: folder,
        }
    }
}

/// A Redis of its own. It writes an append-only file, so that a killed one comes back with what it had confirmed.
pub struct RedisServer {
    child: Child,
    port: u16,
    arguments: Vec<String>,
    kennel: Kennel,
}

impl RedisServer {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With more arguments of `redis-server`.
    pub async fn start_with(arguments: &[&str]) -> Self {
        super::install_crypto();
        let mut kennel = Kennel::new("redis");
        let port = free_port();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let child = Self::spawn(&mut kennel, port, &arguments);
        let server = Self { child, port, arguments, kennel };
        server.ready().await;
        server
    }

    /// A sentinel that watches the primary on this port. It answers to the same commands of a test.
    pub async fn sentinel(name: &str, primary: u16, quorum: usize) -> Self {
        Self::sentinel_with(name, primary, quorum, "").await
    }

    /// With more lines of its configuration.
    pub async fn sentinel_with(name: &str, primary: u16, quorum: usize, more: &str) -> Self {
        super::install_crypto();
        let mut kennel = Kennel::new("sentinel");
        let port = free_port();
        let configuration = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor {name} 127.0.0.1 {primary} {quorum}\n\
             sentinel down-after-milliseconds {name} 500\nsentinel failover-timeout {name} 3000\n{more}"
        );
        let file = kennel.folder.join(SENTINEL_CONFIGURATION);
        fs::write(&file, configuration).expect("a file of the sentinel's");
        let arguments = vec![file.display().to_string(), "--sentinel".to_owned()];
        let child = Self::spawn(&mut kennel, port, &arguments);
        let server = Self { child, port, arguments, kennel };
        server.ready().await;
        server
    }

    fn spawn(kennel: &mut Kennel, port: u16, arguments: &[String]) -> Child {
        let program = find_program(&["redis-server"], "install redis-server (apt-get install redis-server)");
        let folder = kennel.folder.clone();
        if arguments.first().is_some_and(|first| first.ends_with(SENTINEL_CONFIGURATION)) {
            return kennel.start(&program, "redis.log", |command| {
                command.args(arguments);
            });
        }
        kennel.start(&program, "redis.log", |command| {
            command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "yes"]);
            // Each write is with the system before it is confirmed, and outlives a kill. By default Redis puts writes off by
            // seconds while the disk is busy.
            command.args(["--appendfsync", "no"]);
            command.arg("--dir").arg(&folder).args(arguments);
        })
    }

    async fn ready(&self) {
        let ready = tokio::time::timeout(REDIS_READY, async {
            while !self.answers().await {
                tokio::time::sleep(POLL).await;
            }
        });
        let is_ready = ready.await.is_ok();
        assert!(is_ready, "redis-server is not ready:\n{}", self.kennel.log("redis.log"));
    }

    async fn answers(&self) -> bool {
        let asked = tokio::time::timeout(Duration::from_secs(1), async {
            let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await?;
            stream.write_all(b"PING\r\n").await?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await?;
            std::io::Result::Ok(answer)
        });
        asked.await.is_ok_and(|asked| asked.is_ok_and(|answer| matches!(&answer, b"+PONG" | b"-NOAU")))
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The arguments that make a server listen for TLS too, on this port.
    pub fn tls_arguments(certificates: &Certificates, port: u16) -> Vec<String> {
        let file = |path: &Path| path.display().to_string();
        let pairs = [
            ("--tls-port", port.to_string()),
            ("--tls-cert-file", file(&certificates.certificate)),
            ("--tls-key-file", file(&certificates.key)),
            ("--tls-ca-cert-file", file(&certificates.authority)),
            ("--tls-auth-clients", "no".to_owned()),
        ];
        pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }

    /// As [`Self::tls_arguments`], and whoever connects there must show a certificate.
    pub fn mutual_tls_arguments(certificates: &Certificates, port: u16) -> Vec<String> {
        let mut arguments = Self::tls_arguments(certificates, port);
        if let Some(last) = arguments.last_mut() {
            "yes".clone_into(last);
        }
        arguments
    }

    /// With a user and password, or a user of `""`.
    pub fn url_as(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// At once, without a chance to write or say goodbye.
    pub fn kill(&mut self) {
        kill_group(&mut self.child);
    }

    /// With its data, on the same port.
    pub async fn restart(&mut self) {
        self.kill();
        self.child = Self::spawn(&mut self.kennel, self.port, &self.arguments);
        self.ready().await;
    }

    /// On the same port, but everything it knew is gone.
    pub async fn restart_empty(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(self.kennel.folder.join("appendonlydir"));
        let _ = fs::remove_file(self.kennel.folder.join("appendonly.aof"));
        self.restart().await;
    }

    /// It keeps its connections and answers nothing.
    pub fn pause(&self) {
        signal("-STOP", &self.child.id().to_string());
    }

    pub fn resume(&self) {
        signal("-CONT", &self.child.id().to_string());
    }

    /// Runs `redis-cli` and gives what it printed.
    pub async fn cli(&self, arguments: &[&str]) -> String {
        let program = find_program(&["redis-cli"], "install redis-tools (apt-get install redis-tools)");
        let mut command = tokio::process::Command::new(program);
        command.args(["-p", &self.port.to_string()]).args(arguments);
        let output = command.output().await.expect("redis-cli runs");
        let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(output.status.success(), "redis-cli {arguments:?}: {printed}");
        printed
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        kill_group(&mut self.child);
    }
}

/// A RabbitMQ node of its own, with its own epmd unless it is one of a cluster.
pub struct RabbitServer {
    child: Child,
    epmd: Option<Child>,
    port: u16,
    environment: Vec<(&'static str, String)>,
    kennel: Kennel,
}

static SHARED: OnceCell<RabbitServer> = OnceCell::const_new();

const RABBIT_INSTALL: &str = "install rabbitmq-server (apt-get install rabbitmq-server)";
const RABBIT_PROGRAM: &[&str] = &["/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server"];

impl RabbitServer {
    /// What is not there that it needs, with the words to install it, for those who can do without.
    pub fn missing() -> Option<String> {
        let is_here = [RABBIT_PROGRAM, &["epmd"]].into_iter().all(|program| look_for(program).is_some());
        (!is_here).then(|| RABBIT_INSTALL.to_owned())
    }

    /// The one that all tests of this binary share, since one takes seconds to start: use [`super::unique`] names, and
    /// neither kill nor pause it.
    pub async fn shared() -> &'static Self {
        SHARED.get_or_init(Self::start).await
    }

    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// With more lines of `rabbitmq.conf`.
    pub async fn start_with(configuration: &str) -> Self {
        let server = Self::begin(free_port(), free_port(), true, configuration);
        server.ready().await;
        server
    }

    /// Three nodes that have found each other.
    pub async fn start_cluster() -> Vec<Self> {
        let (ports, epmd_port) = ([free_port(), free_port(), free_port()], free_port());
        let peer = |(index, port): (usize, &u16)| {
            format!("cluster_formation.classic_config.nodes.{} = {}\n", index + 1, node_name(*port))
        };
        let peers: String = ports.iter().enumerate().map(peer).collect();
        let configuration = format!("cluster_formation.peer_discovery_backend = classic_config\n{peers}");
        let begin = |port: &u16| Self::begin(*port, epmd_port, *port == ports[0], &configuration);
        let nodes: Vec<Self> = ports.iter().map(begin).collect();
        for node in &nodes {
            node.ready().await;
        }
        nodes[0].ctl(&["await_online_nodes", "3"]).await;
        nodes
    }

    fn begin(port: u16, epmd_port: u16, with_epmd: bool, configuration: &str) -> Self {
        super::install_crypto();
        let mut kennel = Kennel::new("rabbit");
        let environment = environment(&kennel.folder, port, free_port(), epmd_port, configuration);
        let epmd = with_epmd.then(|| {
            let epmd_program = find_program(&["epmd"], RABBIT_INSTALL);
            kennel.start(&epmd_program, "epmd.log", |command| {
                command.args(["-address", "127.0.0.1", "-port", &epmd_port.to_string()]);
            })
        });
        let child = Self::spawn(&mut kennel, &environment);
        Self { child, epmd, port, environment, kennel }
    }

    fn spawn(kennel: &mut Kennel, environment: &[(&'static str, String)]) -> Child {
        // Debian's /usr/sbin/rabbitmq-server insists on a user of its own.
        let program = find_program(RABBIT_PROGRAM, RABBIT_INSTALL);
        kennel.start(&program, "rabbit.log", |command| {
            command.envs(environment.iter().map(|(name, value)| (name, value)));
        })
    }

    async fn ready(&self) {
        let ready = tokio::time::timeout(RABBIT_READY, async {
            while self.connect().await.is_err() {
                tokio::time::sleep(POLL).await;
            }
        });
        let is_ready = ready.await.is_ok();
        assert!(is_ready, "rabbitmq-server is not ready:\n{}", self.kennel.log("rabbit.log"));
    }

    /// A connection, for what a test does to the broker itself.
    pub async fn connect(&self) -> lapin::Result<lapin::Connection> {
        lapin::Connection::connect(&self.url(), lapin::ConnectionProperties::default()).await
    }

    pub fn url(&self) -> String {
        self.url_as("guest", "guest")
    }

    pub fn url_as(&self, user: &str, password: &str) -> String {
        format!("amqp://{user}:{password}@127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Of its process group.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// At once, without a chance to write or say goodbye. RabbitMQ 3.10 writes down that it has streams only some time
    /// after the first one was made: one that was never stopped properly since then forgets them.
    pub fn kill(&mut self) {
        kill_group(&mut self.child);
    }

    /// As an operator would: it closes its connections and its files.
    pub async fn stop(&mut self) {
        let pid = fs::read_to_string(self.kennel.folder.join("pid")).expect("the broker wrote its pid");
        signal("-TERM", pid.trim());
        let stopped = tokio::time::timeout(RABBIT_READY, async {
            while self.child.try_wait().expect("a child").is_none() {
                tokio::time::sleep(POLL).await;
            }
        });
        stopped.await.expect("the broker stops");
    }

    /// The lines that make a broker listen for TLS too, on this port.
    pub fn tls_configuration(certificates: &Certificates, port: u16) -> String {
        format!(
            "listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
             ssl_options.keyfile = {}\nssl_options.verify = verify_none\nssl_options.fail_if_no_peer_cert = false\n",
            certificates.authority.display(),
            certificates.certificate.display(),
            certificates.key.display()
        )
    }

    /// As [`Self::tls_configuration`], and whoever connects there must show a certificate, whose common name may be a user.
    pub fn mutual_tls_configuration(certificates: &Certificates, port: u16) -> String {
        let configuration = Self::tls_configuration(certificates, port);
        let configuration = configuration.replace("verify_none", "verify_peer");
        let configuration = configuration.replace("fail_if_no_peer_cert = false", "fail_if_no_peer_cert = true");
        format!(
            "{configuration}auth_mechanisms.1 = PLAIN\nauth_mechanisms.2 = EXTERNAL\nssl_cert_login_from = common_name\n"
        )
    }

    /// With its data, on the same port.
    pub async fn restart(&mut self) {
        self.start_again();
        self.ready().await;
    }

    /// As [`Self::restart`], without waiting until it is there.
    pub fn start_again(&mut self) {
        self.kill();
        self.child = Self::spawn(&mut self.kennel, &self.environment);
    }

    /// On the same port, but everything it knew is gone.
    pub fn start_empty(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(self.kennel.folder.join("mnesia"));
        self.start_again();
    }

    /// Its name in a cluster.
    pub fn node(&self) -> String {
        node_name(self.port)
    }

    /// It keeps its connections and answers nothing.
    pub fn pause(&self) {
        signal("-STOP", &format!("-{}", self.child.id()));
    }

    pub fn resume(&self) {
        signal("-CONT", &format!("-{}", self.child.id()));
    }

    /// Runs `rabbitmqctl`, which takes a second or two, and gives what it printed.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        let program = find_program(&["/usr/lib/rabbitmq/bin/rabbitmqctl", "rabbitmqctl"], RABBIT_INSTALL);
        let mut command = tokio::process::Command::new(program);
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).arg("--quiet").args(arguments);
        let output = command.output().await.expect("rabbitmqctl runs");
        let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "rabbitmqctl {arguments:?}: {printed} {complained}");
        printed
    }
}

impl Drop for RabbitServer {
    fn drop(&mut self) {
        kill_group(&mut self.child);
        self.epmd.iter_mut().for_each(kill_group);
    }
}

fn node_name(port: u16) -> String {
    format!("taskcast{port}@localhost")
}

/// All that makes a node private: name, ports, folders, cookie.
fn environment(
    folder: &Path,
    port: u16,
    distribution_port: u16,
    epmd_port: u16,
    more: &str,
) -> Vec<(&'static str, String)> {
    let at = |name: &str| folder.join(name).display().to_string();
    let write = |name: &str, text: &str| {
        fs::write(folder.join(name), text).expect("a file of the broker's");
        at(name)
    };
    let configuration = format!(
        "listeners.tcp.1 = 127.0.0.1:{port}\nloopback_users.guest = true\n\
         vm_memory_high_watermark.absolute = 512MB\ndisk_free_limit.absolute = 50MB\n\
         log.console = true\nlog.console.level = warning\n{more}\n"
    );
    // EXTERNAL, a certificate in place of a password, is in a plugin.
    let plugins = if more.contains("EXTERNAL") { "[rabbitmq_auth_mechanism_ssl]." } else { "[]." };
    let arguments = "+S 1:1 -kernel inet_dist_use_interface {127,0,0,1} -setcookie taskcast";
    vec![
        ("HOME", folder.display().to_string()),
        ("ERL_CRASH_DUMP", "/dev/null".to_owned()),
        ("ERL_EPMD_PORT", epmd_port.to_string()),
        // Ours runs already, and one that a dying node or tool starts would stay.
        ("ERL_AFLAGS", "-start_epmd false".to_owned()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        ("RABBITMQ_NODENAME", node_name(port)),
        ("RABBITMQ_MNESIA_BASE", at("mnesia")),
        ("RABBITMQ_LOG_BASE", at("log")),
        ("RABBITMQ_LOGS", "-".to_owned()),
        ("RABBITMQ_CONFIG_FILE", write("rabbitmq.conf", &configuration)),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", write("enabled_plugins", plugins)),
        ("RABBITMQ_DIST_PORT", distribution_port.to_string()),
        ("RABBITMQ_CONF_ENV_FILE", "/dev/null".to_owned()),
        ("RABBITMQ_PID_FILE", at("pid")),
        ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", arguments.to_owned()),
        ("RABBITMQ_ERLANG_COOKIE", "taskcast".to_owned()),
        ("RABBITMQ_GENERATED_CONFIG_DIR", at("generated")),
        ("RABBITMQ_FEATURE_FLAGS_FILE", at("feature_flags")),
    ]
}
