//! The totals as a table for people. Amounts of Stellar assets are shown in whole units with their seven decimals; other
//! tokens choose their own decimals, which nobody tells us, so theirs are shown as they are.

use std::fmt::Write as _;

use crate::totals::AssetReport;
use crate::{Report, Sum};

const HEADINGS: [&str; 9] = [
    "ASSET",
    "EVENTS",
    "TRANSFERS",
    "MINTS",
    "BURNS",
    "CLAWBACKS",
    "FEES",
    "IN",
    "OUT",
];

/// Writes the table, and a summary above it.
pub(crate) fn render(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}\n", summary(report));
    if report.assets.is_empty() {
        return text;
    }
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(report.assets.iter().map(row));
    let widths: [usize; HEADINGS.len()] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0));
    for row in &rows {
        let _ = write!(text, "{:<width$}", row[0], width = widths[0]);
        for (cell, width) in row.iter().zip(widths).skip(1) {
            let _ = write!(text, "  {cell:>width$}");
        }
        text.push('\n');
    }
    let hidden = report.assets_known - report.assets.len();
    if hidden > 0 {
        let _ = writeln!(text, "and {hidden} more; assets in all: {}", report.assets_known);
    }
    text
}

fn summary(report: &Report) -> String {
    let (Some(first), Some(last)) = (report.first, report.last) else {
        return "no ledger yet".to_owned();
    };
    format!(
        "ledgers {first} to {last}: {} counted, {} missing, {} that came again ignored",
        report.ledgers, report.missing, report.duplicates_ignored
    )
}

fn row(asset: &AssetReport) -> [String; HEADINGS.len()] {
    let totals = &asset.totals;
    let show = |sum| amount(&asset.asset, sum);
    [
        short(&asset.asset),
        totals.events.to_string(),
        totals.transfers.events.to_string(),
        totals.mints.events.to_string(),
        totals.burns.events.to_string(),
        totals.clawbacks.events.to_string(),
        totals.fees.events.to_string(),
        show(totals.amount_in),
        show(totals.amount_out),
    ]
}

/// `USD:GABCDEF…` is recognised by its code and the ends of its issuer; all of it is in the JSON.
fn short(asset: &str) -> String {
    let (code, key) = match asset.split_once(':') {
        Some((code, issuer)) => (format!("{code}:"), issuer),
        None => (String::new(), asset),
    };
    match (key.get(..4), key.get(key.len().saturating_sub(4)..)) {
        (Some(head), Some(tail)) if key.len() > 12 => format!("{code}{head}..{tail}"),
        _ => asset.to_owned(),
    }
}

fn amount(asset: &str, sum: Sum) -> String {
    const STROOPS: u128 = 10_000_000;
    let stellar = asset == "native" || asset.contains(':');
    let Some(value) = sum.value().filter(|_| stellar) else {
        return sum.to_string();
    };
    let sign = if value < 0 { "-" } else { "" };
    let size = value.unsigned_abs();
    format!("{sign}{}.{:07}", size / STROOPS, size % STROOPS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, LedgerEvents, TokenEvent, Totals};

    // People read this table, and a misplaced decimal point is a wrong amount.
    #[test]
    fn amounts_have_their_decimals() {
        let event = |kind, asset: &str, amount| TokenEvent {
            kind,
            asset: asset.to_owned(),
            amount,
        };
        let contract = "CAS3J7GYLGXMF6TDJBBYYSE3HQ6BBSMLNUQ34T6TZMYMW2EVH34XOWMA";
        let issuer = "USDC:GA5ZSEJYB37JRC5AVCIA5MOP4RHTM335X2KGX3IHOJAPP5RE34K4KZVN";
        let mut totals = Totals::new(16);
        totals.add(&LedgerEvents {
            ledger: 9,
            events: vec![
                event(Kind::Transfer, "native", 12_345_678_901),
                event(Kind::Fee, "native", -5),
                event(Kind::Mint, issuer, 1),
                event(Kind::Burn, contract, 42),
            ],
        });
        let text = render(&totals.report(2));
        let cells: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            cells[0].join(" "),
            "ledgers 9 to 9: 1 counted, 0 missing, 0 that came again ignored"
        );
        assert_eq!(cells[2], HEADINGS);
        assert_eq!(
            cells[3],
            ["native", "2", "1", "0", "0", "0", "1", "1234.5678901", "1234.5678896"]
        );
        assert_eq!(cells[4], ["CAS3..OWMA", "1", "0", "0", "1", "0", "0", "0", "42"]);
        assert_eq!(cells[5].join(" "), "and 1 more; assets in all: 3");
        let text = render(&totals.report(3));
        assert!(text.contains("USDC:GA5Z..KZVN") && text.contains("0.0000001"), "{text}");
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        assert_eq!(render(&Totals::new(16).report(10)).trim(), "no ledger yet");
    }
}
