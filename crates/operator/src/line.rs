//! Who waits to write a status that tells only of the world. Statuses of that kind have a fifth of all writes for
//! themselves, and whatever else nobody needs. Who gets none joins a line: each object once, in the order of their news,
//! what people gate on first. One task calls them, each when there is a write for it and never together, so that nobody
//! makes a pass in vain. It must not know what is written.

use std::{
    collections::{BTreeSet, HashMap},
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::{budget::Budget, metrics::Metrics, queue::Queue, subject::Subject};

/// How far what is urgent goes ahead: it overtakes what was asked for this long before it. No longer than one object is kept from
/// flapping (`pace`), so that nobody is overtaken twice by the same one.
const AHEAD: Duration = Duration::from_secs(10);
/// A look without being called: a call cannot be lost, and if one were, an object must not wait for its resync.
const PATIENCE: Duration = Duration::from_secs(300);

/// The line.
#[derive(Debug)]
pub(crate) struct Line {
    own: Budget,
    all: Arc<Budget>,
    metrics: Metrics,
    state: Mutex<State>,
    joined: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By the time that decides who is next.
    waiting: BTreeSet<(Instant, Subject)>,
    /// Who waits, and with what time.
    times: HashMap<Subject, Instant>,
    /// Who was called, and has not written since; and when.
    called: HashMap<Subject, Instant>,
}

/// How much somebody waits for a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// People and programs gate on it.
    High,
    /// It is good to know.
    Low,
}

/// What the line has for whoever calls.
enum Next {
    Nobody,
    After(Duration),
    Call(Subject),
}

// === impl Line ===

impl Line {
    /// A line for a fifth of this rate, beside what is left of the budget of all writes.
    pub(crate) fn new(per_second: Option<NonZeroU32>, all: Arc<Budget>, metrics: Metrics) -> Self {
        Self {
            own: Budget::of_statuses(per_second),
            all,
            metrics,
            state: Mutex::default(),
            joined: Notify::new(),
        }
    }

    /// Whether a status of this object may be written now; it is paid for then, in the budget of all writes too. If not,
    /// the object is woken when it may, and the time is that of a look in any case.
    pub(crate) fn ask(&self, subject: &Subject, urgency: Urgency) -> Result<(), Duration> {
        let mut state = self.lock();
        if state.called.remove(subject).is_some() || (state.waiting.is_empty() && self.pay().is_ok()) {
            return Ok(());
        }
        let ahead = match urgency {
            Urgency::High => Duration::ZERO,
            Urgency::Low => AHEAD,
        };
        if state.join(subject, Instant::now() + ahead) {
            self.metrics.deferred.inc();
        }
        drop(state);
        self.joined.notify_one();
        Err(PATIENCE)
    }

    /// There is nothing to write about this object any more.
    pub(crate) fn leave(&self, subject: &Subject) {
        let mut state = self.lock();
        state.called.remove(subject);
        if let Some(time) = state.times.remove(subject) {
            state.waiting.remove(&(time, subject.clone()));
        }
    }

    /// Calls who waits, until it is dropped.
    pub(crate) async fn run(self: Arc<Self>, queue: Queue<Subject>) {
        loop {
            match self.next() {
                Next::Nobody => self.joined.notified().await,
                Next::After(wait) => sleep(wait).await,
                Next::Call(subject) => queue.wake(subject),
            }
        }
    }

    fn next(&self) -> Next {
        let mut state = self.lock();
        if state.waiting.is_empty() {
            return Next::Nobody;
        }
        match self.pay() {
            Err(wait) => Next::After(wait),
            Ok(()) => state.call(Instant::now()).map_or(Next::Nobody, Next::Call),
        }
    }

    /// Takes one write of the line's own, or one that nobody else needs.
    fn pay(&self) -> Result<(), Duration> {
        match self.own.take() {
            Ok(()) => {
                self.all.spend();
                Ok(())
            }
            Err(wait) => self.all.take_spare().map_err(|other| wait.min(other)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    /// Joins, or moves ahead if the news is more urgent than what was asked for before; whether it is new.
    fn join(&mut self, subject: &Subject, time: Instant) -> bool {
        let before = self.times.get(subject).copied();
        if before.is_some_and(|before| before <= time) {
            return false;
        }
        if let Some(before) = before {
            self.waiting.remove(&(before, subject.clone()));
        }
        self.times.insert(subject.clone(), time);
        self.waiting.insert((time, subject.clone()));
        before.is_none()
    }

    fn call(&mut self, now: Instant) -> Option<Subject> {
        let (_, subject) = self.waiting.pop_first()?;
        self.times.remove(&subject);
        // Who was called and is gone never answers.
        self.called
            .retain(|_, at| now.saturating_duration_since(*at) < PATIENCE);
        self.called.insert(subject.clone(), now);
        Some(subject)
    }
}

#[cfg(test)]
mod tests {
    use flowctl_plan::Key;
    use flowctl_runtime::Metrics as Registry;
    use tokio_util::task::AbortOnDropHandle;

    use super::*;

    fn subject(number: usize) -> Subject {
        Subject::pipeline(Key::new("ns", format!("{number:04}")))
    }

    /// A line of 20 statuses in 100 writes a second, its caller at work, and the queue that is woken.
    fn line() -> (Arc<Line>, Arc<Budget>, Queue<Subject>, AbortOnDropHandle<()>) {
        let rate = NonZeroU32::new(100);
        let all = Arc::new(Budget::of_writes(rate));
        let metrics = Metrics::register(&Registry::new("test", "0"));
        let line = Arc::new(Line::new(rate, Arc::clone(&all), metrics));
        let queue = Queue::new();
        let caller = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&line).run(queue.clone())));
        (line, all, queue, caller)
    }

    /// Uses up both budgets, and keeps the one of all writes used up.
    fn busy(line: &Line, all: Arc<Budget>) -> AbortOnDropHandle<()> {
        while line.own.take().is_ok() {}
        while all.take().is_ok() {}
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                sleep(Duration::from_millis(10)).await;
                all.spend();
            }
        }))
    }

    // A thousand objects that change at once would otherwise all come back for the same write, again and again.
    #[tokio::test(start_paused = true)]
    async fn everybody_is_called_once_and_nobody_together() {
        let (line, all, queue, _caller) = line();
        let _others = busy(&line, all);
        let begun = Instant::now();
        for number in 0..200 {
            assert!(line.ask(&subject(number), Urgency::Low).is_err());
            assert!(line.ask(&subject(number), Urgency::Low).is_err(), "an event meanwhile");
        }
        for number in 0..200 {
            let work = queue.next().await.expect("open");
            assert_eq!(work.key(), &subject(number), "in their order");
            let fair = (number + 1) as f64 / 20.0;
            let waited = begun.elapsed().as_secs_f64();
            assert!((fair - 0.1..fair + 0.1).contains(&waited), "{number}: {waited}");
            assert_eq!(queue.depth(), 0, "one at a time");
            assert_eq!(line.ask(work.key(), Urgency::Low), Ok(()));
        }
        let nobody = tokio::time::timeout(Duration::from_secs(60), queue.next()).await;
        assert!(nobody.is_err() && line.lock().called.is_empty());
    }

    // People wait for Ready; they must not stand behind a thousand numbers of pods. Nor may these wait for ever.
    #[tokio::test(start_paused = true)]
    async fn what_is_gated_on_goes_first_and_overtakes_nobody_for_ever() {
        let (line, all, queue, _caller) = line();
        let _others = busy(&line, all);
        for number in 0..300 {
            assert!(line.ask(&subject(number), Urgency::Low).is_err());
        }
        sleep(Duration::from_secs(5)).await;
        assert!(line.ask(&subject(900), Urgency::High).is_err());
        assert!(line.ask(&subject(250), Urgency::High).is_err(), "it has become urgent");
        sleep(Duration::from_secs(6)).await;
        assert!(line.ask(&subject(901), Urgency::High).is_err());
        let mut order = Vec::new();
        for _ in 0..302 {
            let work = queue.next().await.expect("open");
            assert_eq!(line.ask(work.key(), Urgency::Low), Ok(()));
            order.push(work.key().clone());
        }
        let place = |number: usize| order.iter().position(|one| *one == subject(number)).expect("called");
        assert!((99..104).contains(&place(900)), "{}", place(900));
        assert!((99..104).contains(&place(250)), "{}", place(250));
        assert_eq!(place(901), 301, "the others had waited for long");
    }

    // What nobody needs would be lost: a zone that comes back would be told of at a fifth of the speed.
    #[tokio::test(start_paused = true)]
    async fn what_is_left_of_all_writes_is_used_and_no_more() {
        let (line, all, queue, _caller) = line();
        let mut called = 0;
        for number in 0..2000 {
            called += usize::from(line.ask(&subject(number), Urgency::Low).is_ok());
        }
        assert!((195..=205).contains(&called), "at once: {called}");
        let begun = Instant::now();
        let mut calls = Vec::new();
        while calls.len() < 1000 {
            let work = queue.next().await.expect("open");
            assert_eq!(line.ask(work.key(), Urgency::Low), Ok(()));
            calls.push(begun.elapsed().as_secs_f64());
        }
        assert!(
            (9.0..11.0).contains(&calls[999]),
            "all hundred in a second: {}",
            calls[999]
        );
        // Users ask for something now.
        let at_once = (0..400).filter(|_| all.take().is_ok()).count();
        assert!((150..=210).contains(&at_once), "{at_once} were kept for them");
        let begun = Instant::now();
        for _ in 0..20 {
            let _ = queue.next().await.expect("open");
        }
        assert!(
            (0.8..=1.2).contains(&begun.elapsed().as_secs_f64()),
            "{:?}",
            begun.elapsed()
        );
    }

    // A status that has become right again needs no write, and its place is the next one's.
    #[tokio::test(start_paused = true)]
    async fn who_leaves_is_not_called() {
        let (line, all, queue, _caller) = line();
        let _others = busy(&line, all);
        for number in 0..3 {
            assert!(line.ask(&subject(number), Urgency::Low).is_err());
        }
        line.leave(&subject(0));
        assert_eq!(queue.next().await.expect("open").key(), &subject(1));
        line.leave(&subject(1));
        assert_eq!(queue.next().await.expect("open").key(), &subject(2));
        let state = line.lock();
        assert!(state.waiting.is_empty() && state.times.is_empty() && state.called.len() == 1);
    }
}
