//! The end of the soak window, by commands beside a running server.

use serde_json::{Value, json};

use super::{A_SECOND, Installation, PATIENCE, figure, until};

fn installation() -> Installation {
    Installation::with(
        "[legacy]\nallow = true\nhs256_secret = \"the-old-system-signed-with-this-one\"\ncutover_on = \"2026-01-01\"\n",
    )
}

async fn status_of_a_sign_in(installation: &Installation) -> u16 {
    let body = json!({ "email": "nobody@example.com", "password": "x" });
    installation.post("/auth/login/password", "", &body).await.status
}

async fn status(installation: &Installation) -> Value {
    serde_json::from_str(&installation.ok(&["cutover", "status", "--json"]).await).unwrap()
}

#[tokio::test]
async fn a_window_whose_day_has_passed_closes_and_a_command_opens_it_again_in_the_running_server() {
    let one = installation();
    let server = one.serve_ready().await;
    // Nobody used anything of the old system, so the first look closes it.
    until("the window closes", PATIENCE, async || (status_of_a_sign_in(&one).await == 410).then_some(())).await;
    let closed = status(&one).await;
    assert_eq!((&closed["open"], &closed["by"], &closed["allowed"]), (&json!(false), &json!("job"), &json!(true)));
    let refused = one.run(&["cutover", "extend"]).await;
    assert_eq!(refused.status.code(), Some(1), "a closed window is not extended");

    one.ok(&["cutover", "rollback"]).await;
    let (_, took) =
        until("the window is open", A_SECOND, async || (status_of_a_sign_in(&one).await == 401).then_some(())).await;
    figure("a cutover taken back in a running server, after the command ended", took);
    let open = status(&one).await;
    assert_eq!((&open["open"], &open["by"]), (&json!(true), &json!("operator")));
    one.ok(&["cutover", "extend", "--days", "3"]).await;
    let extended = status(&one).await;
    assert!(extended["closes_on"].as_str() > open["closes_on"].as_str(), "{extended}");
    one.ok(&["audit", "verify"]).await;
    drop(server);
}

#[tokio::test]
async fn of_commands_that_change_the_window_at_once_each_counts_once_or_says_that_it_did_not() {
    let one = Installation::with("[legacy]\nallow = true\ncutover_on = \"2999-01-01\"\n");
    let _server = one.serve_ready().await;
    let before = status(&one).await["closes_on"].as_str().unwrap().to_owned();
    assert_eq!(before, "2999-01-01");
    let all = (0..8).map(|_| one.run(&["cutover", "extend", "--days", "1"]));
    let outputs = futures_util::future::join_all(all).await;
    let done = outputs.iter().filter(|output| output.status.success()).count();
    for output in outputs.iter().filter(|output| !output.status.success()) {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains("at the same time; try again"), "{said}");
    }
    assert!(done >= 1);
    let after = status(&one).await;
    assert_eq!(after["closes_on"], format!("2999-01-{:02}", 1 + done), "{done} of them were heard");
    let rows = one.ok(&["audit", "export", "--event", "cutover.extended"]).await;
    assert_eq!(rows.lines().count(), done, "{rows}");
}
