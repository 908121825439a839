//! The messages of a stream that have no result yet, in order. Pure bookkeeping: an id is entered
//! before its message is sent, an answer takes it out, and an answer whose id is not there is
//! nobody's. Time is an argument.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::dialect::Request;

/// Position in the order of submission.
pub(crate) type Place = u64;

/// A message without a result.
#[derive(Debug)]
pub(crate) struct Entry<R> {
    pub(crate) request: Request,
    /// Where the result goes.
    pub(crate) reply: R,
    /// When it was sent on the stream that is open now.
    pub(crate) sent: Option<Instant>,
    /// When it was sent for the first time.
    pub(crate) first_sent: Option<Instant>,
    /// Not to be sent again before.
    pub(crate) not_before: Option<Instant>,
    /// Attempts that failed.
    pub(crate) failures: u32,
    /// How often the peer asked for redelivery.
    pub(crate) redeliveries: u32,
    /// The last trouble, for messages.
    pub(crate) last: String,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Pending<R> {
    entries: BTreeMap<Place, Entry<R>>,
    places: HashMap<String, Place>,
    next: Place,
    sent: usize,
}

// === impl Pending ===

impl<R> Pending<R> {
    pub(crate) fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            places: HashMap::new(),
            next: 0,
            sent: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Messages sent on the open stream that have no answer.
    pub(crate) fn unanswered(&self) -> usize {
        self.sent
    }

    /// Whether a message with this id is under way.
    pub(crate) fn knows(&self, trace_id: &str) -> bool {
        self.places.contains_key(trace_id)
    }

    /// Enters a message at the end. Its id must not be under way: two answers with one id could
    /// not be told apart.
    pub(crate) fn enter(&mut self, request: Request, reply: R) {
        let place = self.next;
        self.next += 1;
        self.places.insert(request.trace_id.clone(), place);
        self.entries.insert(
            place,
            Entry {
                request,
                reply,
                sent: None,
                first_sent: None,
                not_before: None,
                failures: 0,
                redeliveries: 0,
                last: String::new(),
            },
        );
    }

    /// The first message that is still to be sent, and from when on it may be. Later ones wait
    /// behind it: sending them first would change their order.
    pub(crate) fn next_unsent(&self) -> Option<(Place, Option<Instant>)> {
        self.entries
            .iter()
            .find(|(_, entry)| entry.sent.is_none())
            .map(|(place, entry)| (*place, entry.not_before))
    }

    /// Marks a message as sent and gives it out for sending.
    pub(crate) fn send(&mut self, place: Place, now: Instant) -> Option<&Request> {
        let entry = self.entries.get_mut(&place)?;
        if entry.sent.replace(now).is_none() {
            self.sent += 1;
        }
        entry.first_sent.get_or_insert(now);
        entry.not_before = None;
        Some(&entry.request)
    }

    /// Takes out the message that an answer belongs to. `None`: the id is unknown, was answered
    /// before, or was not sent on this stream.
    pub(crate) fn answered(&mut self, trace_id: &str) -> Option<(Place, Entry<R>)> {
        let place = *self.places.get(trace_id)?;
        self.entries.get(&place)?.sent?;
        self.take(place).map(|entry| (place, entry))
    }

    /// Takes out a message.
    pub(crate) fn take(&mut self, place: Place) -> Option<Entry<R>> {
        let entry = self.entries.remove(&place)?;
        self.places.remove(&entry.request.trace_id);
        if entry.sent.is_some() {
            self.sent -= 1;
        }
        Some(entry)
    }

    /// Puts a message back in its place, to be sent again.
    pub(crate) fn put_back(&mut self, place: Place, mut entry: Entry<R>, not_before: Instant) {
        entry.sent = None;
        entry.not_before = Some(not_before);
        self.places.insert(entry.request.trace_id.clone(), place);
        self.entries.insert(place, entry);
    }

    /// The stream is gone: everything without an answer has to be sent again.
    pub(crate) fn rewind(&mut self) {
        for entry in self.entries.values_mut() {
            entry.sent = None;
        }
        self.sent = 0;
    }

    /// The oldest message that was sent and has no answer.
    pub(crate) fn oldest_sent(&mut self) -> Option<(Place, &mut Entry<R>)> {
        self.entries
            .iter_mut()
            .find(|(_, entry)| entry.sent.is_some())
            .map(|(place, entry)| (*place, entry))
    }

    /// When the oldest unanswered message will have waited for `timeout`, counted from when it was
    /// sent or from the last answer of any message, whichever is later.
    pub(crate) fn stalls_at(&self, timeout: Duration, progress: Instant) -> Option<Instant> {
        let oldest = self.entries.values().find_map(|entry| entry.sent)?;
        Some(oldest.max(progress) + timeout)
    }

    /// The first message that was tried at all, and when that began.
    pub(crate) fn oldest_tried(&self) -> Option<(Place, Instant)> {
        self.entries
            .iter()
            .find_map(|(place, entry)| entry.first_sent.map(|first| (*place, first)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn request(id: &str) -> Request {
        Request {
            trace_id: id.to_owned(),
            payload: Bytes::new(),
            metadata: BTreeMap::new(),
            archive: None,
        }
    }

    fn sent(ids: &[&str]) -> Pending<()> {
        let mut pending = Pending::new();
        for id in ids {
            pending.enter(request(id), ());
            let (place, _) = pending.next_unsent().expect("unsent");
            pending.send(place, Instant::now());
        }
        pending
    }

    #[test]
    fn an_answer_is_matched_once_and_only_to_what_was_sent() {
        let mut pending = sent(&["a", "b"]);
        pending.enter(request("c"), ());
        assert!(pending.answered("b").is_some());
        assert!(pending.answered("b").is_none(), "answered twice");
        assert!(pending.answered("x").is_none(), "never known");
        assert!(pending.answered("c").is_none(), "not sent yet");
        assert_eq!(pending.unanswered(), 1);
    }

    #[test]
    fn after_a_broken_stream_everything_unanswered_is_sent_again_in_order() {
        let mut pending = sent(&["a", "b", "c", "d"]);
        pending.answered("b");
        pending.rewind();
        let mut order = Vec::new();
        while let Some((place, _)) = pending.next_unsent() {
            let request = pending.send(place, Instant::now()).expect("there");
            order.push(request.trace_id.clone());
        }
        assert_eq!(order, ["a", "c", "d"]);
    }

    #[test]
    fn a_redelivery_goes_before_what_came_after_it() {
        let mut pending = sent(&["a"]);
        pending.enter(request("b"), ());
        let (place, entry) = pending.answered("a").expect("sent");
        let later = Instant::now() + Duration::from_secs(5);
        pending.put_back(place, entry, later);
        assert_eq!(pending.next_unsent(), Some((place, Some(later))));
    }
}
