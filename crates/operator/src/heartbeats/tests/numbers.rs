//! What components measure, shown among the operator's own metrics.

use super::*;

async fn shows_measurements_as_allowed(dialect: Dialect) -> Result<()> {
    let (server, endpoint) = beating(Script {
        dialect,
        ..Script::default()
    })?;
    let told = |status: tonic::Status| Error::impossible(status.to_string());
    let measured = [
        ("processed", "7"),
        ("stellar.ledger", "12"),
        ("secret", "1"),
        ("text", "x"),
    ];
    server.beat_with(ID, &measured).map_err(told)?;
    server.register("stranger", None);
    server.beat_with("stranger", &[("processed", "1")]).map_err(told)?;
    let options = HeartbeatOptions {
        keys: Keys::new(vec!["processed".to_owned(), "stellar.*".to_owned(), "text".to_owned()]),
        ..HeartbeatOptions::default()
    };
    let (hub, _queue) = hub(&options);
    let registry = Registry::new("test", "0");
    hub.register(&registry);
    fresh(&hub, &endpoint).await?;
    let text = registry
        .encode()
        .map_err(|error| Error::impossible(error.to_string()))?;
    let mut series: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("flowctl_operator_component_metric{"))
        .collect();
    series.sort_unstable();
    let labels = |key: &str| {
        format!("kind=\"ExternalProcessor\",namespace=\"ns\",name=\"one\",component=\"one\",key=\"{key}\"}}")
    };
    assert_eq!(
        series,
        [
            format!("{} 7.0", labels("processed")),
            format!("{} 12.0", labels("stellar.ledger"))
        ]
    );
    let state = format!(
        "flowctl_operator_control_plane_state{{control_plane=\"{endpoint}\",named_by=\"object\",state=\"good\"}} 1"
    );
    assert!(text.contains(&state), "{text}");
    Ok(())
}

// A component that measures something else with each beat would fill the operator's memory, and the last number of one
// that is gone would lead an autoscaler for ever.
#[tokio::test]
async fn measurements_are_bounded_and_end_with_their_component() -> Result<()> {
    let hub = hub(&HeartbeatOptions::default()).0;
    drop(hub.look(&subject("one"), Some(asked("localhost:1", None))));
    let plane = only(&hub);
    for number in 0..1000 {
        plane.measure(ID, Numbers::from([(format!("key{number}"), 1.0)]));
    }
    let shown = || {
        let mut count = 0;
        plane.each_number(|_, _, _, _| count += 1);
        count
    };
    assert_eq!(shown(), translate::MOST_NUMBERS);
    plane.keep_numbers_of(|id| id != ID);
    assert_eq!(shown(), 0);
    Ok(())
}

// Numbers are shown of the components that an object expects, of the keys that the administrator allows, and of no others.
#[tokio::test]
async fn listed_measurements_are_shown_as_allowed() -> Result<()> {
    shows_measurements_as_allowed(Dialect::Go).await
}

#[tokio::test]
async fn streamed_measurements_are_shown_as_allowed() -> Result<()> {
    shows_measurements_as_allowed(Dialect::Ours).await
}
