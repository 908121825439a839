//! The thread that writes. After a failed commit the file is closed and opened again for the next write, so that a disk that was
//! full works again when there is room, without a restart.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::file::StoreFile;
use super::{Room, StoreError, Write};

/// Writes that are taken into one transaction.
const BATCH: usize = 4096;
/// Bytes that may wait for the disk.
const WAITING_BYTES: usize = 16 * 1024 * 1024;

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
    while let Ok(first) = requests.recv() {
        let mut batch = vec![first];
        let mut size = 0;
        while size < BATCH
            && let Ok(next) = requests.try_recv()
        {
            size += next.writes.len();
            batch.push(next);
        }
        if file.is_err() {
            file = StoreFile::open(&path);
        }
        let writes = || batch.iter().flat_map(|request| &request.writes);
        let result = match &file {
            Ok(open) => open.write(writes()),
            Err(error) => Err(error.clone()),
        };
        if let (Ok(_), Err(error)) = (&file, &result) {
            file = Err(error.clone());
        }
        *failure.lock().unwrap_or_else(PoisonError::into_inner) = result.as_ref().err().cloned();
        for request in batch {
            // Whoever asked may have gone; what was written stays written.
            let _ = request.answer.send(result.clone());
        }
    }
}
