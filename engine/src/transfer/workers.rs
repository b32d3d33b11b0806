//! The I/O threads: chunks of an operation, in parallel, all done or given up before the operation returns.

use crate::Error;
use std::{
    any::Any,
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

type Task = dyn Fn(usize, Part) -> Result<(), Error> + Send + Sync;

/// What a thread does of an operation.
#[derive(Clone, Copy)]
enum Part {
    Chunk(u64),
    /// Once for each thread that did chunks, after its last one, whatever became of them.
    End,
}

/// Threads that live as long as the engine. One thread makes runs deterministic.
pub(super) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Where the threads run: a forked child does not have them.
    process: u32,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    operations: VecDeque<Operation>,
    next_id: u64,
    closing: bool,
}

struct Operation {
    id: u64,
    task: Arc<Task>,
    next: u64,
    end: u64,
    running: usize,
    /// Of the first chunk that failed, in the block's order.
    failure: Option<(u64, Error)>,
}

impl Operation {
    fn take(&mut self) -> Option<u64> {
        self.has_work().then(|| {
            self.next += 1;
            self.next - 1
        })
    }

    fn has_work(&self) -> bool {
        self.failure.is_none() && self.next < self.end
    }

    fn is_over(&self) -> bool {
        self.running == 0 && !self.has_work()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, thread: usize) {
        let mut state = self.lock();
        loop {
            let Some(operation) = state.operations.iter_mut().find(|each| each.has_work()) else {
                if state.closing {
                    return;
                }
                state = self.wait(state);
                continue;
            };
            let (id, task) = (operation.id, Arc::clone(&operation.task));
            operation.running += 1;
            let mut last = operation.next;
            while let Some(chunk) = state.operation(id).and_then(Operation::take) {
                drop(state);
                let outcome = caught(&*task, thread, Part::Chunk(chunk));
                state = self.lock();
                state.note(id, chunk, outcome);
                last = chunk;
            }
            drop(state);
            let ended = caught(&*task, thread, Part::End);
            // Before the waiter can go on: what the task holds must not outlive its operation.
            drop(task);
            state = self.lock();
            state.note(id, last, ended);
            if let Some(operation) = state.operation(id) {
                operation.running -= 1;
                if operation.is_over() {
                    // Nobody waits for single chunks.
                    self.changed.notify_all();
                }
            }
        }
    }
}

fn caught(task: &Task, thread: usize, part: Part) -> Result<(), Error> {
    catch_unwind(AssertUnwindSafe(|| task(thread, part)))
        .unwrap_or_else(|panic| Err(Error::WorkerPanicked(text_of(panic.as_ref()))))
}

impl State {
    fn operation(&mut self, id: u64) -> Option<&mut Operation> {
        self.operations.iter_mut().find(|each| each.id == id)
    }

    fn note(&mut self, id: u64, chunk: u64, outcome: Result<(), Error>) {
        let (Some(operation), Err(error)) = (self.operation(id), outcome) else {
            return;
        };
        let earlier = operation.failure.as_ref();
        if earlier.is_none_or(|(failed, _)| chunk < *failed) {
            operation.failure = Some((chunk, error));
        }
    }
}

impl Workers {
    /// Starts `count` threads, named after `role`.
    ///
    /// # Errors
    /// The system refuses a thread; those already started are joined.
    pub(super) fn new(role: &str, count: usize) -> Result<Self, Error> {
        let mut workers = Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                changed: Condvar::new(),
            }),
            threads: Vec::with_capacity(count),
            process: std::process::id(),
        };
        for index in 0..count {
            let shared = Arc::clone(&workers.shared);
            // The kernel keeps 15 bytes of a name.
            let name = format!("{role}-{index}");
            let thread = std::thread::Builder::new()
                .name(name.clone())
                .spawn(move || shared.work(index))
                .map_err(|source| Error::Io {
                    operation: "start of a thread",
                    path: name.into(),
                    source,
                })?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// Refuses a forked child, which has neither the threads nor, perhaps, who holds a lane.
    ///
    /// # Errors
    /// [`Error::OtherProcess`].
    pub(super) fn refuse_child(&self) -> Result<(), Error> {
        if std::process::id() == self.process {
            return Ok(());
        }
        Err(Error::OtherProcess {
            opened_by: self.process,
        })
    }

    /// Runs `task(thread, chunk)` for the chunks 0 to `chunks` − 1 and returns when no thread works on them any more. The first
    /// error stops chunks that have not begun; a panic is such an error, and the thread lives on (E29). Each thread that did some
    /// does `end(thread)` after its last one, and before it does anything else.
    ///
    /// # Errors
    /// That of the first chunk, in order, that failed.
    pub(super) fn run(
        &self,
        chunks: u64,
        task: impl Fn(usize, u64) -> Result<(), Error> + Send + Sync + 'static,
        end: impl Fn(usize) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let mut state = self.shared.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.operations.push_back(Operation {
            id,
            task: Arc::new(move |thread, part| match part {
                Part::Chunk(chunk) => task(thread, chunk),
                Part::End => end(thread),
            }),
            next: 0,
            end: chunks,
            running: 0,
            failure: None,
        });
        self.shared.changed.notify_all();
        loop {
            let over = state
                .operations
                .iter()
                .position(|each| each.id == id && each.is_over());
            if let Some(operation) = over.and_then(|at| state.operations.remove(at)) {
                drop(state);
                return operation.failure.map_or(Ok(()), |(_, error)| Err(error));
            }
            state = self.shared.wait(state);
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            // Neither the threads nor, perhaps, who holds the lock exist here; not even their handles may be dropped.
            std::mem::forget(std::mem::take(&mut self.threads));
            return;
        }
        self.shared.lock().closing = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // Panics of tasks are caught, so a thread ends normally.
            let _ = thread.join();
        }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}

#[cfg(test)]
mod tests {
    //! Every chunk once, errors and panics given to the waiter, and threads that outlive both.
    use super::*;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    fn nothing(_thread: usize) -> Result<(), Error> {
        Ok(())
    }

    #[test]
    fn each_thread_ends_after_its_last_chunk_and_before_the_operation_returns() {
        for threads in [1, 3] {
            let workers = Workers::new("test", threads).unwrap();
            // Chunks since the last end, by thread; how often one ended that had done none.
            let open: Arc<Vec<AtomicU64>> = Arc::new((0..threads).map(|_| 0.into()).collect());
            let idle = Arc::new(AtomicU64::new(0));
            for failing in [None, Some(4)] {
                let (doing, ending, none) = (open.clone(), open.clone(), idle.clone());
                let result = workers.run(
                    20,
                    move |thread, chunk| {
                        doing[thread].fetch_add(1, Ordering::Relaxed);
                        match failing {
                            Some(failing) if chunk == failing => panic!("chunk {chunk}"),
                            _ => Ok(()),
                        }
                    },
                    move |thread| {
                        let done = ending[thread].swap(0, Ordering::Relaxed);
                        none.fetch_add(u64::from(done == 0), Ordering::Relaxed);
                        Ok(())
                    },
                );
                assert_eq!(result.is_err(), failing.is_some());
                assert!(
                    open.iter()
                        .all(|chunks| chunks.load(Ordering::Relaxed) == 0)
                );
            }
            assert_eq!(idle.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn an_error_of_an_end_is_one_of_the_operation() {
        let workers = Workers::new("test", 1).unwrap();
        let end = |_| Err(Error::Internal("at the end".into()));
        let error = workers.run(3, |_, _| Ok(()), end).unwrap_err();
        assert!(error.to_string().contains("at the end"), "{error}");
        workers.run(3, |_, _| Ok(()), nothing).unwrap();
    }

    #[test]
    fn every_chunk_runs_exactly_once() {
        for threads in [1, 4] {
            let workers = Workers::new("test", threads).unwrap();
            let seen: Arc<Vec<AtomicUsize>> =
                Arc::new((0..50).map(|_| AtomicUsize::new(0)).collect());
            let counts = Arc::clone(&seen);
            workers
                .run(
                    50,
                    move |_, chunk| {
                        counts[chunk as usize].fetch_add(1, Ordering::Relaxed);
                        Ok(())
                    },
                    nothing,
                )
                .unwrap();
            assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn no_chunks_are_done_at_once() {
        Workers::new("test", 1)
            .unwrap()
            .run(0, |_, _| Ok(()), nothing)
            .unwrap();
    }

    #[test]
    fn the_first_error_stops_the_rest() {
        let workers = Workers::new("test", 1).unwrap();
        let ran = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&ran);
        let error = workers
            .run(
                10,
                move |_, chunk| {
                    count.fetch_add(1, Ordering::Relaxed);
                    if chunk == 3 {
                        return Err(Error::Internal(format!("chunk {chunk}")));
                    }
                    Ok(())
                },
                nothing,
            )
            .unwrap_err();
        assert!(error.to_string().contains("chunk 3"), "{error}");
        assert_eq!(ran.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn a_panic_becomes_an_error_and_the_thread_lives_on() {
        let workers = Workers::new("test", 1).unwrap();
        let error = workers
            .run(3, |_, chunk| panic!("chunk {chunk} went wrong"), nothing)
            .unwrap_err();
        assert!(
            matches!(&error, Error::WorkerPanicked(text) if text == "chunk 0 went wrong"),
            "{error}"
        );
        workers.run(3, |_, _| Ok(()), nothing).unwrap();
    }

    #[test]
    fn what_a_task_holds_is_let_go_before_its_operation_returns() {
        let workers = Workers::new("test", 4).unwrap();
        for _ in 0..200 {
            let held = Arc::new(());
            let inside = Arc::clone(&held);
            workers
                .run(
                    8,
                    move |_, _| {
                        let _used = &inside;
                        Ok(())
                    },
                    nothing,
                )
                .unwrap();
            assert_eq!(Arc::strong_count(&held), 1);
        }
    }
}
