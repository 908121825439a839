//! `StdoutConsumer`: lines on standard output, flushed. Logs go to standard error, so the output
//! is data only.

use std::io::{self, Write};

use super::LineSink;

/// Standard output of the process.
#[derive(Debug, Default)]
pub(crate) struct Stdout;

// === impl Stdout ===

impl LineSink for Stdout {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(lines)?;
        out.flush()
    }

    fn place(&self) -> String {
        "standard output".to_owned()
    }
}
