//! `flowctl alert`: conditions that the server watches, and webhooks that it calls.

use std::path::Path;
use std::process::ExitCode;

use flowctl_proto::flowctl::registry::v1::{
    Alert, AlertState, CreateAlertRequest, DeleteAlertRequest, ListAlertsRequest,
};
use serde::Serialize;

use crate::args::{AlertCommand, AlertCreateArgs};
use crate::dial::Server;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::Table;
use crate::time::rfc3339;

#[derive(Serialize)]
struct AlertView {
    alert_id: String,
    /// Empty: each service.
    service_id: String,
    condition: String,
    webhook: String,
    signed: bool,
    created_at: Option<String>,
    instances: Vec<InstanceView>,
}

#[derive(Serialize)]
struct InstanceView {
    service_id: String,
    state: &'static str,
    since: Option<String>,
    delivered_at: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    delivery_error: String,
}

#[derive(Serialize)]
struct Deleted {
    deleted: Vec<String>,
}

pub(crate) async fn run(server: &Server, output: &Output, command: AlertCommand) -> Result<ExitCode, Failure> {
    match command {
        AlertCommand::Create(arguments) => create(server, output, arguments).await?,
        AlertCommand::List { service } => list(server, output, service).await?,
        AlertCommand::Delete { ids } => delete(server, output, ids).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(server: &Server, output: &Output, arguments: AlertCreateArgs) -> Result<(), Failure> {
    let secret = match (&arguments.secret, &arguments.secret_file) {
        (_, Some(file)) => read_secret(file)?,
        (secret, None) => secret.clone().unwrap_or_default(),
    };
    let request = CreateAlertRequest {
        service_id: arguments.service.unwrap_or_default(),
        condition: arguments.condition,
        webhook_url: arguments.webhook,
        secret,
    };
    let alert = server.registry().create_alert(request).await;
    let alert = alert
        .map_err(|status| server.failure("make the alert", status))?
        .into_inner();
    let view = AlertView::from(alert);
    output.write(&view, || {
        let about = if view.service_id.is_empty() {
            "every service"
        } else {
            &view.service_id
        };
        let signed = if view.signed { "signed" } else { "not signed" };
        format!(
            "alert {} made: {about}, {}; calls {} ({signed})\n",
            view.alert_id, view.condition, view.webhook
        )
    })
}

async fn list(server: &Server, output: &Output, service: Option<String>) -> Result<(), Failure> {
    let request = ListAlertsRequest {
        service_id: service.unwrap_or_default(),
    };
    let answer = server.registry().list_alerts(request).await;
    let answer = answer
        .map_err(|status| server.failure("list alerts", status))?
        .into_inner();
    let alerts: Vec<AlertView> = answer.alerts.into_iter().map(AlertView::from).collect();
    output.write(&alerts, || table(&alerts))
}

async fn delete(server: &Server, output: &Output, ids: Vec<String>) -> Result<(), Failure> {
    for id in &ids {
        let request = DeleteAlertRequest { alert_id: id.clone() };
        let deleted = server.registry().delete_alert(request).await;
        deleted.map_err(|status| server.failure("delete the alert", status))?;
    }
    output.write(&Deleted { deleted: ids.clone() }, || {
        ids.iter().map(|id| format!("alert {id} deleted\n")).collect()
    })
}

fn table(alerts: &[AlertView]) -> String {
    let mut table = Table::new(["ID", "SERVICE", "CONDITION", "STATE", "SINCE", "WEBHOOK", "LAST CALL"]);
    for alert in alerts {
        let all = if alert.service_id.is_empty() {
            "(every)"
        } else {
            &alert.service_id
        };
        let row = |service: &str, state: &str, since: Option<&String>, call: String| {
            [
                alert.alert_id.clone(),
                service.to_owned(),
                alert.condition.clone(),
                state.to_owned(),
                since.cloned().unwrap_or_default(),
                alert.webhook.clone(),
                call,
            ]
        };
        if alert.instances.is_empty() {
            table.row(row(all, "unknown", None, String::new()));
        }
        for instance in &alert.instances {
            let call = match (instance.delivery_error.is_empty(), &instance.delivered_at) {
                (false, _) => format!("failed: {}", instance.delivery_error),
                (true, Some(at)) => at.clone(),
                (true, None) => String::new(),
            };
            table.row(row(&instance.service_id, instance.state, instance.since.as_ref(), call));
        }
    }
    table.render()
}

fn read_secret(file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::Other(format!("cannot read the secret file {}: {error}", file.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

impl From<Alert> for AlertView {
    fn from(alert: Alert) -> Self {
        let instances = alert.instances.into_iter().map(|instance| InstanceView {
            state: match instance.state() {
                AlertState::Unknown => "unknown",
                AlertState::Ok => "ok",
                AlertState::Firing => "firing",
            },
            since: instance.since.as_ref().and_then(rfc3339),
            delivered_at: instance.delivered_at.as_ref().and_then(rfc3339),
            service_id: instance.service_id,
            delivery_error: instance.delivery_error,
        });
        Self {
            alert_id: alert.alert_id,
            service_id: alert.service_id,
            condition: alert.condition,
            webhook: alert.webhook_url,
            signed: alert.signed,
            created_at: alert.created_at.as_ref().and_then(rfc3339),
            instances: instances.collect(),
        }
    }
}
