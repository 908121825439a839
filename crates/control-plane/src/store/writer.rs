//! The thread that writes. After a failed commit the file is closed and opened again for the next write, or for an attempt each
//! second if there is none: a disk that was full works again when there is room, without a restart and without traffic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::file::StoreFile;
use super::{Room, StoreError, Write};

/// Writes that are taken into one transaction.
const BATCH: usize = 4096;
/// Bytes that may wait for the disk.
const WAITING_BYTES: usize = 16 * 1024 * 1024;
/// Between two attempts on a disk that does not take writes.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The way to the thread.
#[derive(Debug)]
pub(crate) struct Writer {
    sender: Mutex<Option<Sender<Request>>>,
    room: Arc<Semaphore>,
    failure: Arc<Mutex<Option<StoreError>>>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
}

#[derive(Debug)]
struct Request {
    writes: Vec<Write>,
    answer: oneshot::Sender<Result<(), StoreError>>,
    /// Given back when the request is done.
    _room: Room,
}

// === impl Writer ===

impl Writer {
    pub(super) fn start(file: StoreFile) -> Result<Self, StoreError> {
        let (sender, receiver) = channel();
        let (end, ended) = oneshot::channel();
        let failure = Arc::<Mutex<Option<StoreError>>>::default();
        let (path, shared) = (file.path().to_owned(), Arc::clone(&failure));
        thread::Builder::new()
            .name("registry-store".to_owned())
            .spawn(move || {
                run(file, &receiver, &shared);
                // The receiver is gone if nobody waits for the end.
                let _ = end.send(());
            })
            .map_err(|error| StoreError::io("start a thread that writes", &path, &error))?;
        Ok(Self {
            sender: Mutex::new(Some(sender)),
            room: Arc::new(Semaphore::new(WAITING_BYTES)),
            failure,
            ended: Mutex::new(Some(ended)),
        })
    }

    /// A disk that hangs: what is sent is never answered.
    #[cfg(test)]
    pub(super) fn hung() -> Self {
        let (sender, receiver) = channel();
        let holding = thread::spawn(move || {
            let held: Vec<Request> = receiver.iter().collect();
            drop(held);
        });
        // It ends with its sender.
        drop(holding);
        Self {
            sender: Mutex::new(Some(sender)),
            room: Arc::new(Semaphore::new(WAITING_BYTES)),
            failure: Arc::default(),
            ended: Mutex::default(),
        }
    }

    pub(super) async fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes.min(WAITING_BYTES)).unwrap_or(u32::MAX);
        // It is never closed.
        Arc::clone(&self.room).acquire_many_owned(bytes).await.ok()
    }

    pub(super) fn send(&self, writes: Vec<Write>, room: Room) -> oneshot::Receiver<Result<(), StoreError>> {
        let (answer, answered) = oneshot::channel();
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*sender {
            // If the thread is gone, `answer` is dropped, and that is the answer.
            let _ = sender.send(Request {
                writes,
                answer,
                _room: room,
            });
        }
        answered
    }

    pub(super) async fn close(&self) -> Result<(), StoreError> {
        drop(self.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ended) = ended {
            ended.await.map_err(|_| StoreError::Closed)?;
        }
        self.failure().map_or(Ok(()), Err)
    }

    pub(super) fn failure(&self) -> Option<StoreError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn run(file: StoreFile, requests: &Receiver<Request>, failure: &Mutex<Option<StoreError>>) {
    let path = file.path().to_owned();
    let mut file = Ok(file);
    while let Some(batch) = next(requests, file.is_err()) {
        if file.is_err() {
            file = guarded(&path, || StoreFile::open(&path));
        }
        let writes = || batch.iter().flat_map(|request| &request.writes);
        let result = match &file {
            // An attempt without any writes is a commit all the same.
            Ok(open) => guarded(&path, || open.write(writes())),
            Err(error) => Err(error.clone()),
        };
        if let (Ok(_), Err(error)) = (&file, &result) {
            let broken = std::mem::replace(&mut file, Err(error.clone()));
            // What panicked once may do so again at its end; the error is told already.
            let _ = guarded(&path, || {
                drop(broken);
                Ok(())
            });
        }
        *failure.lock().unwrap_or_else(PoisonError::into_inner) = result.as_ref().err().cloned();
        for request in batch {
            // Whoever asked may have gone; what was written stays written.
            let _ = request.answer.send(result.clone());
        }
    }
}

/// What is to be written together; nothing of it when it is time for another attempt. `None` at the end.
fn next(requests: &Receiver<Request>, is_failing: bool) -> Option<Vec<Request>> {
    let first = match is_failing {
        false => requests.recv().ok()?,
        true => match requests.recv_timeout(TRY_AGAIN) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => return Some(Vec::new()),
            Err(RecvTimeoutError::Disconnected) => return None,
        },
    };
    let mut size = first.writes.len();
    let mut batch = vec![first];
    while size < BATCH
        && let Ok(next) = requests.try_recv()
    {
        size += next.writes.len();
        batch.push(next);
    }
    Some(batch)
}

/// redb panics on some damages; this thread must not end with it, or nobody would ever hear why nothing is written.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(StoreError::Corrupt {
            path: path.to_owned(),
            why: "redb gave up".to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // A thread that died would leave a server that calls itself well and keeps nothing.
    #[test]
    fn a_panic_is_a_failure_like_others() {
        let failed = guarded::<()>(Path::new("registry.db"), || panic!("a mistake of redb's"));
        assert!(matches!(failed, Err(StoreError::Corrupt { .. })));
        assert!(guarded(Path::new("registry.db"), || Ok(1)).is_ok_and(|one| one == 1));
    }
}
