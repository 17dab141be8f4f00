//! Ctrl-C: it stops an answer, not the program.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use anyhow::{Context, Result};
use futures::task::AtomicWaker;

/// What shells say of a program that Ctrl-C ended.
const EXIT_INTERRUPTED: i32 = 130;

/// Hears of Ctrl-C while an answer is made.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<State>);

#[derive(Debug, Default)]
struct State {
    answering: AtomicBool,
    stop: AtomicBool,
    waker: AtomicWaker,
}

impl Interrupt {
    /// Listen. While no answer is made, a signal ends a program that reads from a pipe; at a terminal's prompt the line
    /// editor sees the key itself.
    pub fn listen(interactive: bool) -> Result<Self> {
        let interrupt = Self::default();
        let state = interrupt.0.clone();
        ctrlc::set_handler(move || {
            if state.answering.load(Ordering::SeqCst) {
                state.stop.store(true, Ordering::SeqCst);
                state.waker.wake();
            } else if !interactive {
                std::process::exit(EXIT_INTERRUPTED);
            }
        })
        .context("cannot listen for Ctrl-C")?;
        Ok(interrupt)
    }

    /// An answer begins; it ends when the returned value is dropped.
    pub fn answering(&self) -> Answering {
        self.0.stop.store(false, Ordering::SeqCst);
        self.0.answering.store(true, Ordering::SeqCst);
        Answering(self.clone())
    }
}

/// An answer that can be stopped.
#[derive(Debug)]
pub struct Answering(Interrupt);

impl Answering {
    pub fn is_stopped(&self) -> bool {
        self.0.0.stop.load(Ordering::SeqCst)
    }

    /// Ends when the answer is to be stopped.
    pub async fn stopped(&self) {
        poll_fn(|cx| {
            self.0.0.waker.register(cx.waker());
            if self.is_stopped() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.0.answering.store(false, Ordering::SeqCst);
    }
}
