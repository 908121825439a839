//! `flowctl metrics ID`: what a service measured over time, as a table with a small picture of each metric.

use std::process::ExitCode;

use flowctl_proto::flowctl::registry::v1::{GetMetricHistoryRequest, MetricHistory, MetricSeries};
use serde::Serialize;

use crate::args::MetricsArgs;
use crate::dial::Server;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::Table;
use crate::time::{rfc3339, short};
use crate::view::Number;

/// Most characters of a picture.
const WIDTH: usize = 30;
/// From the least to the most.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

#[derive(Serialize)]
struct Answer {
    service_id: String,
    resolution_seconds: i64,
    metrics: Vec<Metric>,
}

#[derive(Serialize)]
struct Metric {
    name: String,
    points: Vec<Point>,
}

#[derive(Serialize)]
struct Point {
    time: Option<String>,
    value: Number,
    #[serde(skip)]
    number: f64,
}

pub(crate) async fn run(server: &Server, output: &Output, arguments: &MetricsArgs) -> Result<ExitCode, Failure> {
    let request = GetMetricHistoryRequest {
        service_id: arguments.id.clone(),
        duration: prost_types::Duration::try_from(arguments.duration).ok(),
        keys: arguments.metrics.clone(),
    };
    let answer = server.registry().get_metric_history(request).await;
    let history = answer
        .map_err(|status| server.failure("read the history of metrics", status))?
        .into_inner();
    let answer = Answer::from(history);
    output.write(&answer, || answer.table(&short(arguments.duration)))?;
    Ok(ExitCode::SUCCESS)
}

// === impl Answer ===

impl From<MetricHistory> for Answer {
    fn from(history: MetricHistory) -> Self {
        Self {
            service_id: history.service_id,
            resolution_seconds: history.resolution.map_or(0, |resolution| resolution.seconds),
            metrics: history.series.into_iter().map(Metric::from).collect(),
        }
    }
}

impl Answer {
    fn table(&self, duration: &str) -> String {
        if self.metrics.iter().all(|metric| metric.points.is_empty()) {
            return format!("{} reported no numbers in the last {duration}\n", self.service_id);
        }
        let mut table = Table::new(["METRIC", "LAST", "MIN", "MAX", "AVERAGE", "POINTS", "TREND"]);
        for metric in &self.metrics {
            let numbers: Vec<f64> = metric.points.iter().map(|point| point.number).collect();
            let Some(last) = numbers.last() else { continue };
            let least = numbers.iter().copied().fold(f64::INFINITY, f64::min);
            let most = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            table.row([
                metric.name.clone(),
                Number::from(*last).to_string(),
                Number::from(least).to_string(),
                Number::from(most).to_string(),
                format!("{:.1}", mean(&numbers)),
                numbers.len().to_string(),
                sparkline(&numbers),
            ]);
        }
        table.render()
    }
}

impl From<MetricSeries> for Metric {
    fn from(series: MetricSeries) -> Self {
        let points = series.points.into_iter().map(|point| Point {
            time: point.time.as_ref().and_then(rfc3339),
            value: Number::from(point.value),
            number: point.value,
        });
        Self {
            name: series.key,
            points: points.collect(),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred points")]
fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

/// The course of a metric; each character is the mean of its part of the time.
fn sparkline(numbers: &[f64]) -> String {
    let columns = numbers.len().min(WIDTH);
    let heights: Vec<f64> = (0..columns)
        .map(|column| mean(&numbers[column * numbers.len() / columns..(column + 1) * numbers.len() / columns]))
        .collect();
    let least = heights.iter().copied().fold(f64::INFINITY, f64::min);
    let most = heights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let bar = |height: &f64| {
        // What does not move lies on the ground.
        let share = if most > least {
            (height - least) / (most - least)
        } else {
            0.0
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of seven, between 0 and 7"
        )]
        let step = (share * 7.0).round() as usize;
        BARS[step.min(BARS.len() - 1)]
    };
    heights.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // A picture that shows a rise as a fall is worse than none.
    #[test]
    fn a_sparkline_shows_the_course() {
        assert_eq!(sparkline(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(&[7.0, 0.0]), "█▁");
        assert_eq!(sparkline(&[5.0, 5.0]), "▁▁");
        let long: Vec<f64> = (0..360).map(f64::from).collect();
        let picture = sparkline(&long);
        assert_eq!(picture.chars().count(), WIDTH);
        assert!(picture.starts_with('▁') && picture.ends_with('█'), "{picture}");
    }
}
