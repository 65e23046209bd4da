//! What it costs to pass one small answer on.

use std::{fs, net::SocketAddr, path::Path, process::Command, time::Duration};

use doorward_testkit::{
    neighbour, port,
    process::Process,
    proxies::{self, Kind},
};

use crate::{
    Effort,
    load::{self, Contestant, Server},
    report::{Report, Target, median, ratio},
    roles,
};

pub(crate) async fn run(report: &mut Report, effort: Effort) {
    report.table("Proxying one small answer", "CPU s per 10,000 requests", "ratio");
    let Some(wrk) = load::program() else {
        return report.skipped("proxying", "wrk is missing");
    };
    let folder = tempfile::tempdir().unwrap();
    let app = Server::start("app", &[]).await;
    let address = app.address.to_string();
    let bare = Server::start("bare", &[(roles::APP, &address)]).await;
    let (doorward, cookie) = Server::doorward(folder.path(), app.address).await;
    let nginx = nginx(folder.path(), app.address).await;
    let asking = match &nginx {
        Some(_) => proxies::Proxy::start(Kind::Nginx, port::free(), doorward.address, app.address).await,
        None => None,
    };
    let fields = vec![format!("Cookie: doorward_sid={cookie}")];
    let contestant = |name, processes: Vec<u32>, address: SocketAddr, path: &str| Contestant {
        name,
        processes,
        url: format!("http://{address}{path}"),
        headers: fields.clone(),
        tokens: None,
    };
    let id = doorward.process.id();
    let mut contestants = vec![
        contestant("bare hyper-util proxy", vec![bare.process.id()], bare.address, "/orders/17"),
        contestant("Doorward, public rule", vec![id], doorward.address, "/public/17"),
        contestant("Doorward, session in memory", vec![id], doorward.address, "/orders/17"),
    ];
    match (&nginx, &asking) {
        (Some((process, address)), Some(asking)) => {
            contestants.push(contestant("nginx, proxy_pass", vec![process.id()], *address, "/orders/17"));
            let both = vec![asking.id(), id];
            contestants.push(contestant(
                "nginx, deploy/nginx.conf, asking Doorward",
                both,
                asking.addr(),
                "/orders/17",
            ));
        }
        _ => report.skipped("nginx", "it is missing"),
    }
    let costs = load::measure(&wrk, &contestants, effort).await;
    for (at, (contestant, cost)) in contestants.iter().zip(&costs).enumerate() {
        let name = format!("{}, to bare", contestant.name);
        let target = if at == 2 { Target::Most(1.15) } else { Target::None };
        report.row(&name, &format!("{:.3}", median(cost.clone())), Some(ratio(cost, &costs[0])), target);
    }
    let mut compared = |name: &str, of: usize, to: usize, most: f64| {
        if let Some(to) = costs.get(to) {
            report.row(name, "", Some(ratio(&costs[of], to)), Target::Most(most));
        }
    };
    compared("Doorward, public rule, to nginx proxy_pass", 1, 3, 1.1);
    compared("Doorward, session, to nginx asking Doorward", 2, 4, 0.5);
}

/// nginx that only passes on, on one process; `None` where it is missing.
async fn nginx(folder: &Path, app: SocketAddr) -> Option<(Process, SocketAddr)> {
    let program = neighbour::program("nginx")?;
    let address = SocketAddr::from(([127, 0, 0, 1], port::free()));
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind}; ", folder.display()))
        .concat();
    let file = folder.join("plain.conf");
    let text = format!(
        "pid {folder}/plain.pid; error_log stderr warn; events {{}}
http {{
    access_log off; {temporary}
    upstream app {{ server {app}; keepalive 32; }}
    server {{
        listen {address};
        location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\"; }}
    }}
}}
",
        folder = folder.display()
    );
    fs::write(&file, text).unwrap();
    let mut command = Command::new(program);
    command.args(["-e", "stderr", "-g", "daemon off; master_process off;", "-p"]).arg(folder).arg("-c").arg(file);
    let process = Process::start("nginx", &mut command);
    let is_open = port::opens(address, Duration::from_secs(20)).await;
    assert!(is_open, "nginx does not listen:\n{}", process.output());
    Some((process, address))
}
