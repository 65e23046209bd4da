//! Real front proxies, running the very files of `deploy/` on free ports.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use crate::{neighbour, port, process::Process};

/// How long a proxy may take to listen; it takes a tenth of a second on an idle machine.
const STARTS_WITHIN: Duration = Duration::from_mins(1);

/// A proxy that asks Doorward by forward-auth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `auth_request`, with `deploy/nginx.conf`.
    Nginx,
    /// `forward_auth`, with `deploy/Caddyfile`.
    Caddy,
    /// An action in Lua, with `deploy/haproxy.cfg` and `deploy/doorward.lua`.
    HaProxy,
    /// `ext_authz` over HTTP, with `deploy/envoy.yaml`.
    Envoy,
}

impl Kind {
    /// Every proxy that Debian or PyPI packages.
    pub const ALL: [Self; 4] = [Self::Nginx, Self::Caddy, Self::HaProxy, Self::Envoy];

    /// The program's name, which is also its forward-auth dialect.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Caddy => "caddy",
            Self::HaProxy => "haproxy",
            Self::Envoy => "envoy",
        }
    }

    fn program(self) -> Option<PathBuf> {
        match self {
            Self::Envoy => neighbour::envoy(),
            Self::Nginx | Self::Caddy | Self::HaProxy => neighbour::program(self.name()),
        }
    }
}

/// A running proxy; dropping it ends the process and removes its files.
pub struct Proxy {
    process: Process,
    addr: SocketAddr,
    _folder: TempDir,
}

impl Proxy {
    /// Starts a proxy on `port` of the loopback address that asks `doorward` and passes requests to `app`.
    ///
    /// The port comes from outside ([`port::free`]): Doorward's `public_url` names it, and Doorward starts first.
    /// `None`, after a loud line, if the program is not installed.
    ///
    /// # Panics
    /// If the proxy does not listen in time, and under `CI=true` if it is not installed.
    pub async fn start(kind: Kind, port: u16, doorward: SocketAddr, app: SocketAddr) -> Option<Self> {
        let program = neighbour::require(kind.name(), kind.program())?;
        let folder = TempDir::with_prefix("doorward-proxy-").unwrap();
        let site = Site { folder: folder.path(), port, doorward, app };
        let mut command = match kind {
            Kind::Nginx => site.nginx(program),
            Kind::Caddy => site.caddy(program),
            Kind::HaProxy => site.haproxy(program),
            Kind::Envoy => site.envoy(program),
        };
        let process = Process::start(kind.name(), &mut command);
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        assert!(
            port::opens(addr, STARTS_WITHIN).await,
            "{} does not listen; it printed:\n{}",
            kind.name(),
            process.output()
        );
        Some(Self { process, addr, _folder: folder })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it printed: its warnings and errors.
    pub fn output(&self) -> String {
        self.process.output()
    }
}

struct Site<'a> {
    folder: &'a Path,
    port: u16,
    doorward: SocketAddr,
    app: SocketAddr,
}

impl Site<'_> {
    /// A file of `deploy/` with its placeholders replaced, and then `replaced`; every one must occur.
    fn write(&self, file: &str, replaced: &[(&str, String)]) -> PathBuf {
        let mut text = fs::read_to_string(neighbour::repository().join("deploy").join(file)).unwrap();
        let hosts = [("127.0.0.1:8080", self.doorward.to_string()), ("127.0.0.1:3000", self.app.to_string())];
        for (placeholder, value) in hosts.iter().chain(replaced) {
            assert!(text.contains(placeholder), "deploy/{file} has lost its placeholder {placeholder}");
            text = text.replace(placeholder, value);
        }
        let path = self.folder.join(file);
        fs::write(&path, text).unwrap();
        path
    }

    fn nginx(&self, program: PathBuf) -> Command {
        let site = self.write("nginx.conf", &[("listen 80;", format!("listen 127.0.0.1:{};", self.port))]);
        let folder = self.folder.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {folder}/{kind}; "))
            .concat();
        let main = self.folder.join("main.conf");
        let text = format!(
            "pid {folder}/pid; error_log stderr warn; events {{}}\nhttp {{ access_log off; {temporary}include {}; }}\n",
            site.display()
        );
        fs::write(&main, text).unwrap();
        let mut command = Command::new(program);
        // One process, so that ending it ends all of nginx.
        command
            .args(["-e", "stderr", "-g", "daemon off; master_process off;"])
            .arg("-p")
            .arg(self.folder)
            .arg("-c")
            .arg(main);
        command
    }

    fn caddy(&self, program: PathBuf) -> Command {
        let site = format!("\nhttp://:{} {{\n\tbind 127.0.0.1\n", self.port);
        let file = self.write("Caddyfile", &[("\napp.example.com {\n", site)]);
        // What belongs to a test, not to the site: no control socket, no certificates.
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{{\n\tadmin off\n\tauto_https off\n}}\n{text}")).unwrap();
        let mut command = Command::new(program);
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
        for variable in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
            command.env(variable, self.folder);
        }
        command
    }

    fn haproxy(&self, program: PathBuf) -> Command {
        fs::copy(neighbour::repository().join("deploy/doorward.lua"), self.folder.join("doorward.lua")).unwrap();
        let file = self.write(
            "haproxy.cfg",
            &[
                ("bind :80\n", format!("bind 127.0.0.1:{}\n", self.port)),
                ("/etc/haproxy/", format!("{}/", self.folder.display())),
            ],
        );
        let mut command = Command::new(program);
        command.arg("-db").arg("-f").arg(file);
        command
    }

    fn envoy(&self, program: PathBuf) -> Command {
        // Hosts and ports stand apart in its file.
        let at = |addr: SocketAddr| format!("address: {}, port_value: {} }}", addr.ip(), addr.port());
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let file = self.write(
            "envoy.yaml",
            &[
                ("address: 0.0.0.0, port_value: 80 }", at(here)),
                ("address: 127.0.0.1, port_value: 8080 }", at(self.doorward)),
                ("address: 127.0.0.1, port_value: 3000 }", at(self.app)),
            ],
        );
        let mut command = Command::new(program);
        // Nobody else's shared memory, and no more threads than a test needs.
        command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warn", "-c"]).arg(file);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_packaged_proxy_takes_its_file_of_deploy() {
        for kind in Kind::ALL {
            // Nobody listens at these: a proxy starts before its neighbours do.
            let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()));
            let Some(proxy) = Proxy::start(kind, port::free(), nobody, nobody).await else { continue };
            assert!(!proxy.output().to_lowercase().contains("[warn"), "{}: {}", kind.name(), proxy.output());
        }
    }
}
