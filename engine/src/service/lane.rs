//! Work beside the device: on a thread of its own, or at once where there are none.

use futures::channel::oneshot;

/// Runs closures one after the other.
pub struct Lane {
    #[cfg(not(target_arch = "wasm32"))]
    worker: crate::native::Worker,
}

impl Lane {
    /// Start one.
    pub fn start(name: &str) -> crate::Result<Self> {
        #[cfg(not(target_arch = "wasm32"))]
        return match crate::native::Worker::start(name) {
            Ok(worker) => Ok(Self { worker }),
            Err(e) => Err(crate::Error::Invalid(format!("the system grants no thread for the store: {e}"))),
        };
        #[cfg(target_arch = "wasm32")]
        {
            let _ = name;
            Ok(Self {})
        }
    }

    /// Run `job` after those before it.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        #[cfg(not(target_arch = "wasm32"))]
        self.worker.run(job);
        #[cfg(target_arch = "wasm32")]
        job();
    }

    /// Run `job` after those before it; its result comes through the channel.
    pub fn ask<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> oneshot::Receiver<R> {
        let (send, receive) = oneshot::channel();
        self.run(move || {
            // Whoever asked may have gone.
            let _ = send.send(job());
        });
        receive
    }
}
