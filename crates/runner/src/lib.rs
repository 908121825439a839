//! Runs a pipeline file: source → processors → consumers, with acknowledgement end to end.
