//! What is looked at next, and when.

use super::*;
use futures::FutureExt as _;

fn next(queue: &Queue<u8>) -> Option<u8> {
    // Ended work is put back by forgetting nothing: the guard is dropped at once.
    queue.next().now_or_never().flatten().map(|work| *work.key())
}

// A burst of events about one object must cost one pass, not one each.
#[tokio::test(start_paused = true)]
async fn a_burst_is_one_look() {
    let queue = Queue::new();
    for key in [1, 2, 1, 1, 2] {
        queue.wake(key);
    }
    assert_eq!(queue.depth(), 2);
    assert_eq!([next(&queue), next(&queue), next(&queue)], [Some(1), Some(2), None]);
}

// A replica that waits for months must neither grow with every object that ever was, nor call work late that it could
// not have done.
#[tokio::test(start_paused = true)]
async fn who_may_not_work_keeps_nothing() {
    let queue = Queue::idle();
    queue.wake(1);
    queue.wake_after(2, Duration::from_secs(1));
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!((queue.depth(), next(&queue)), (0, None));
    queue.begin();
    assert_eq!(next(&queue), None);
    queue.wake(1);
    let work = queue.next().await.expect("open");
    assert_eq!((*work.key(), work.waited()), (1, Duration::ZERO));
}

// Two passes over one object at a time would race with each other; a change during a pass must not be lost.
#[tokio::test(start_paused = true)]
async fn a_key_in_work_waits_and_is_looked_at_again() {
    let queue = Queue::new();
    queue.wake(1);
    let work = queue.next().await.expect("open");
    queue.wake(1);
    queue.wake(1);
    assert_eq!(next(&queue), None);
    assert_eq!((queue.depth(), queue.in_work()), (1, 1));
    drop(work);
    assert_eq!([next(&queue), next(&queue)], [Some(1), None]);
}

#[tokio::test(start_paused = true)]
async fn of_two_delays_the_earliest_counts_and_a_look_forgets_both() {
    let queue = Queue::new();
    let start = Instant::now();
    queue.wake_after(1, Duration::from_secs(30));
    queue.wake_after(1, Duration::from_secs(10));
    queue.wake_after(1, Duration::from_secs(20));
    drop(queue.next().await.expect("open"));
    assert_eq!(start.elapsed().as_secs(), 10);
    queue.wake_after(1, Duration::from_secs(10));
    queue.wake(1);
    drop(queue.next().await.expect("open"));
    let nothing = tokio::time::timeout(Duration::from_secs(60), queue.next()).await;
    assert!(nothing.is_err());
}

// An operator that may not write for a while must show what waits for it, begin with what waited longest, and hear the
// end.
#[tokio::test(start_paused = true)]
async fn what_is_held_keeps_its_place_and_is_seen() {
    let queue = Queue::new();
    let until = Instant::now() + Duration::from_secs(30);
    let hold = move || {
        until
            .checked_duration_since(Instant::now())
            .filter(|wait| !wait.is_zero())
    };
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while let Some(work) = queue.next_unless(hold).await {
                    seen.push((*work.key(), work.waited().as_secs()));
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                seen
            })
        })
        .collect();
    for key in 0..5 {
        queue.wake(key);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    queue.wake_after(9, Duration::from_secs(1));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!((queue.depth(), queue.in_work()), (6, 0));
    tokio::time::sleep(Duration::from_secs(60)).await;
    queue.close();
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.await.expect("no panic"));
    }
    all.sort_unstable();
    assert_eq!(all, [(0, 30), (1, 29), (2, 28), (3, 28), (4, 27), (9, 25)]);

    let queue = Queue::<u8>::new();
    let held = queue.next_unless(|| Some(Duration::from_secs(3600)));
    let closed = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        queue.close();
    };
    let (work, ()) = tokio::time::timeout(Duration::from_secs(2), async { tokio::join!(held, closed) })
        .await
        .expect("the end is heard");
    assert!(work.is_none());
}

// The first sign of an operator that is too slow is how long its work waits; what is put off on purpose does not.
#[tokio::test(start_paused = true)]
async fn waiting_counts_from_when_a_key_is_due() {
    let queue = Queue::new();
    let after = async |seconds| tokio::time::advance(Duration::from_secs(seconds)).await;
    queue.wake(1);
    after(2).await;
    queue.wake(1);
    after(1).await;
    let work = queue.next().await.expect("open");
    assert_eq!(work.waited().as_secs(), 3);
    queue.wake(1);
    after(4).await;
    queue.wake(1);
    drop(work);
    assert_eq!(
        queue.next().await.expect("open").waited().as_secs(),
        4,
        "woken while in work"
    );
    queue.wake_after(1, Duration::from_secs(10));
    after(15).await;
    assert_eq!(
        queue.next().await.expect("open").waited().as_secs(),
        5,
        "due five seconds ago"
    );
}

// An idle worker must not sleep through work that arrives while all others are busy.
#[tokio::test(start_paused = true)]
async fn every_waiting_worker_gets_work_and_hears_the_end() {
    let queue = Queue::new();
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while let Some(work) = queue.next().await {
                    seen.push(*work.key());
                    tokio::time::sleep(Duration::from_secs(10)).await;
                }
                seen
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let start = Instant::now();
    queue.wake_after(3, Duration::from_secs(1));
    queue.wake(1);
    queue.wake(2);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(queue.in_work(), 3);
    queue.close();
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.await.expect("no panic"));
    }
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3]);
    assert_eq!(start.elapsed().as_secs(), 11);
}
