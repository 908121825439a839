//! Passing a watch on, event by event, and what can go wrong with it.

use std::{collections::BTreeSet, sync::Weak};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use kube::client::Body as KubeBody;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc::{Sender, UnboundedReceiver, channel},
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;

use super::serve::{Body, Broken, Connection, gone_event};
use crate::rule::{Rewrite, WatchFault, WatchRule, held_for};

/// Frames that may wait for a slow client.
const WAITING: usize = 64;

/// A watch that is passed on.
struct Stream {
    client: Sender<Result<Frame<Bytes>, Broken>>,
    connection: Weak<Connection>,
    rewrite: Option<Rewrite>,
    /// What has come of the next event.
    partial: BytesMut,
    held: Option<Held>,
    duplicates: bool,
    next: Next,
    passed: u32,
}

/// Events that wait.
struct Held {
    events: Vec<Bytes>,
    until: Option<Instant>,
    coalesces: bool,
}

/// What is to happen to the next event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Passes,
    IsCut,
    IsUndecodable,
}

/// Whether a stream goes on.
enum Flow {
    On,
    /// The client's connection stays, and hears nothing more.
    Silent,
    Ended,
    /// The client's connection breaks.
    Broken,
}

/// The body for the client; the task that fills it ends with the watch or with the client.
pub(super) fn pass_on(
    body: KubeBody,
    faults: UnboundedReceiver<WatchFault>,
    later: Option<WatchRule>,
    rewrite: Option<Rewrite>,
    connection: Weak<Connection>,
) -> Body {
    let (client, frames) = channel(WAITING);
    let stream = Stream {
        client,
        connection,
        rewrite,
        partial: BytesMut::new(),
        held: None,
        duplicates: false,
        next: Next::Passes,
        passed: 0,
    };
    tokio::spawn(stream.run(body, faults, later));
    StreamBody::new(ReceiverStream::new(frames)).boxed_unsync()
}

// === impl Stream ===

impl Stream {
    async fn run(
        mut self,
        mut body: KubeBody,
        mut faults: UnboundedReceiver<WatchFault>,
        mut later: Option<WatchRule>,
    ) {
        let client = self.client.clone();
        let mut silent = false;
        loop {
            let due = self.held.as_ref().and_then(|held| held.until);
            let flow = tokio::select! {
                biased;
                () = client.closed() => return,
                fault = faults.recv() => match fault {
                    Some(fault) => self.disturb(fault).await,
                    None => Flow::Broken,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.resume().await,
                frame = body.frame(), if !silent => match frame {
                    Some(Ok(frame)) => self.data(frame).await,
                    Some(Err(_)) => Flow::Broken,
                    None => self.resume().await.and_end(),
                },
            };
            let flow = match later.filter(|rule| self.passed >= rule.after) {
                Some(rule) if matches!(flow, Flow::On) => {
                    later = None;
                    self.disturb(rule.fault).await
                }
                _ => flow,
            };
            match flow {
                Flow::On => {}
                Flow::Silent => silent = true,
                Flow::Ended => return,
                Flow::Broken => {
                    // Fails only when the client went first.
                    let _ = self.client.send(Err(Broken)).await;
                    return;
                }
            }
        }
    }

    async fn disturb(&mut self, fault: WatchFault) -> Flow {
        match fault {
            WatchFault::End => Flow::Ended,
            WatchFault::Reset => {
                if let Some(connection) = self.connection.upgrade() {
                    connection.reset_at_end();
                }
                Flow::Broken
            }
            WatchFault::Cut => {
                self.next = Next::IsCut;
                Flow::On
            }
            WatchFault::Gone => self.send(gone_event()).await.and_end(),
            WatchFault::Silence => Flow::Silent,
            WatchFault::Duplicate => {
                self.duplicates = true;
                Flow::On
            }
            WatchFault::Undecodable => {
                self.next = Next::IsUndecodable;
                Flow::On
            }
            WatchFault::Hold(milliseconds) => self.hold(milliseconds, false),
            WatchFault::Coalesce(milliseconds) => self.hold(milliseconds, true),
            WatchFault::Resume => {
                self.duplicates = false;
                self.next = Next::Passes;
                self.resume().await
            }
        }
    }

    fn hold(&mut self, milliseconds: u64, coalesces: bool) -> Flow {
        let until = held_for(milliseconds).map(|wait| Instant::now() + wait);
        let events = self.held.take().map(|held| held.events).unwrap_or_default();
        self.held = Some(Held {
            events,
            until,
            coalesces,
        });
        Flow::On
    }

    async fn resume(&mut self) -> Flow {
        let Some(held) = self.held.take() else { return Flow::On };
        let events = if held.coalesces {
            last_of_each(held.events)
        } else {
            held.events
        };
        for event in events {
            match self.event(event).await {
                Flow::On => {}
                other => return other,
            }
        }
        Flow::On
    }

    async fn data(&mut self, frame: Frame<Bytes>) -> Flow {
        let Ok(data) = frame.into_data() else { return Flow::On };
        self.partial.extend_from_slice(&data);
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let event = self.partial.split_to(end + 1).freeze();
            if let Some(held) = &mut self.held {
                held.events.push(event);
                continue;
            }
            match self.event(event).await {
                Flow::On => {}
                other => return other,
            }
        }
        Flow::On
    }

    /// Passes one event on.
    async fn event(&mut self, event: Bytes) -> Flow {
        let mut event = match &self.rewrite {
            Some(rewrite) => changed(&event, |value| (rewrite.0)(value)),
            None => event,
        };
        match std::mem::replace(&mut self.next, Next::Passes) {
            Next::Passes => {}
            Next::IsCut => {
                let half = event.slice(..event.len() / 2);
                return match self.send(half).await {
                    Flow::On => Flow::Broken,
                    other => other,
                };
            }
            Next::IsUndecodable => event = changed(&event, spoil),
        }
        self.passed += 1;
        if self.duplicates {
            match self.send(event.clone()).await {
                Flow::On => {}
                other => return other,
            }
        }
        self.send(event).await
    }

    async fn send(&mut self, bytes: Bytes) -> Flow {
        match self.client.send(Ok(Frame::data(bytes))).await {
            Ok(()) => Flow::On,
            Err(_) => Flow::Ended,
        }
    }
}

// === impl Flow ===

impl Flow {
    /// The end, if nothing worse came before.
    fn and_end(self) -> Self {
        match self {
            Self::On => Self::Ended,
            other => other,
        }
    }
}

fn changed(event: &Bytes, change: impl FnOnce(&mut Value)) -> Bytes {
    match serde_json::from_slice::<Value>(event) {
        Ok(mut value) => {
            change(&mut value);
            format!("{value}\n").into()
        }
        Err(_) => event.clone(),
    }
}

/// Makes the object of an event one that no typed client can read.
fn spoil(event: &mut Value) {
    if let Some(object) = event.get_mut("object").and_then(Value::as_object_mut) {
        for field in ["spec", "data", "revision"] {
            object.insert(field.to_owned(), json!("spoilt by the fault proxy"));
        }
    }
}

/// Of several events of one object the last, where it stands.
fn last_of_each(events: Vec<Bytes>) -> Vec<Bytes> {
    let name = |event: &Bytes| {
        let event: Value = serde_json::from_slice(event).unwrap_or_default();
        let part = |key: &str| event.pointer(key).and_then(Value::as_str).map(str::to_owned);
        (part("/object/metadata/namespace"), part("/object/metadata/name"))
    };
    let mut seen = BTreeSet::new();
    let mut last: Vec<Bytes> = events
        .into_iter()
        .rev()
        .filter(|event| seen.insert(name(event)))
        .collect();
    last.reverse();
    last
}
