//! A thread that runs closures one after the other; it ends when its handle is dropped.

use std::sync::mpsc::{Sender, channel};

type Job = Box<dyn FnOnce() + Send>;

/// Handle of the thread.
pub struct Worker {
    jobs: Sender<Job>,
}

impl Worker {
    /// Start the thread.
    ///
    /// # Errors
    /// If the system grants no thread.
    pub fn start(name: &str) -> std::io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        std::thread::Builder::new().name(name.into()).spawn(move || queue.into_iter().for_each(|job| job()))?;
        Ok(Self { jobs })
    }

    /// Queue a closure.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        // The thread ends only when this handle does, or when a job panicked; then whoever waits for the job sees its
        // channel closed.
        let _ = self.jobs.send(Box::new(job));
    }
}
