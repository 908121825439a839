//! Example consumer: counts and sums token transfer events by asset and serves the totals over HTTP.
