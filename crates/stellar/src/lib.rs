//! Ledgers: archives on disk, XDR, and what can be read from them.
