//! Example processor: Stellar token transfer events from ledgers.
