//! The bare loop against a server that counts.

use std::{
    io::Write as _,
    sync::{Arc, Mutex},
};

use flowctl_bench::{Recorded, Sent};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::Command,
};

/// Reads one request and gives its first line and body.
async fn read(connection: &mut TcpStream) -> Option<(String, String)> {
    let mut text = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        match connection.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => text.extend(buffer.iter().take(read)),
        }
        let seen = String::from_utf8_lossy(&text).into_owned();
        let Some((head, body)) = seen.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Some((head.lines().next().unwrap_or_default().to_owned(), body.to_owned()));
        }
    }
}

// What the operator is measured against must send each request once, and must not hide what was refused.
#[tokio::test]
async fn every_request_is_sent_once_and_refusals_are_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let server = format!("http://{}", listener.local_addr().expect("an address"));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&seen);
    let serving = tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let heard = Arc::clone(&heard);
            tokio::spawn(async move {
                while let Some((line, body)) = read(&mut connection).await {
                    let refused = line.contains("refused");
                    heard.lock().expect("no panic").push((line, body));
                    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 422, "message": "no"});
                    let answer = if refused { status.to_string() } else { "{}".to_owned() };
                    let code = if refused { "422 Unprocessable Entity" } else { "200 OK" };
                    let text = format!("HTTP/1.1 {code}\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
                    if connection.write_all(text.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });

    let mut kubeconfig = tempfile::NamedTempFile::new().expect("a file");
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": server}}], "users": [{"name": "x", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}]});
    kubeconfig.write_all(config.to_string().as_bytes()).expect("written");
    let mut requests = tempfile::NamedTempFile::new().expect("a file");
    let names: Vec<String> = (0..20)
        .map(|number| format!("/api/{number}"))
        .chain(["/refused".to_owned()])
        .collect();
    for path in &names {
        let recorded = Recorded {
            method: "PATCH".to_owned(),
            path: path.clone(),
            content_type: "application/apply-patch+yaml".to_owned(),
            body: "{\"a\":1}".to_owned(),
        };
        writeln!(requests, "{}", serde_json::to_string(&recorded).expect("JSON")).expect("written");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_bare-loop"))
        .arg(requests.path())
        .args(["--in-flight", "4"])
        .env("KUBECONFIG", kubeconfig.path())
        .kill_on_drop(true)
        .output()
        .await
        .expect("it runs");
    serving.abort();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let sent: Sent = serde_json::from_slice(&output.stdout).expect(&told);
    assert_eq!(
        (sent.requests, sent.bytes, sent.refused.len()),
        (20, 140, 1),
        "{sent:?}"
    );
    let mut lines: Vec<String> = seen
        .lock()
        .expect("no panic")
        .iter()
        .map(|(line, _)| line.clone())
        .collect();
    lines.sort();
    let mut wanted: Vec<String> = names.iter().map(|path| format!("PATCH {path} HTTP/1.1")).collect();
    wanted.sort();
    assert_eq!(lines, wanted);
    assert!(
        seen.lock()
            .expect("no panic")
            .iter()
            .all(|(_, body)| body == "{\"a\":1}")
    );
}
