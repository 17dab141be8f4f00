//! Telling a person how far it is.

use std::io::Write;
use std::time::{Duration, Instant};

/// Hears of the work's stages.
pub trait Watch {
    /// A stage of so many steps begins.
    fn begin(&mut self, what: &str, steps: usize);
    /// So many steps are done, with a word on how it stands.
    fn step(&mut self, done: usize, note: &str);
    /// Something worth a line of its own.
    fn say(&mut self, line: &str);
}

/// Lines of text, one every so often, with the time that is left.
pub struct Lines<W> {
    out: W,
    every: Duration,
    what: String,
    steps: usize,
    begun: Instant,
    said: Instant,
    /// Steps done when the first step was heard of: work that was resumed does not count for the rate.
    first: Option<usize>,
}

impl<W: Write> Lines<W> {
    /// Lines written to `out`.
    pub fn new(out: W, every: Duration) -> Self {
        let now = Instant::now();
        Self { out, every, what: String::new(), steps: 0, begun: now, said: now, first: None }
    }
}

impl<W: Write> Watch for Lines<W> {
    fn begin(&mut self, what: &str, steps: usize) {
        (self.what, self.steps, self.first) = (what.to_owned(), steps, None);
        (self.begun, self.said) = (Instant::now(), Instant::now());
        self.say(&format!("{what}: {steps} steps"));
    }

    fn step(&mut self, done: usize, note: &str) {
        let first = *self.first.get_or_insert(done.saturating_sub(1));
        if self.said.elapsed() < self.every && done < self.steps {
            return;
        }
        self.said = Instant::now();
        let seconds = self.begun.elapsed().as_secs_f64();
        let left = seconds / (done - first).max(1) as f64 * self.steps.saturating_sub(done) as f64;
        let line = format!("{}: {done} of {}, {seconds:.0} s, {left:.0} s left  {note}", self.what, self.steps);
        self.say(&line);
    }

    fn say(&mut self, line: &str) {
        // Nobody listens: nothing to do about it.
        let _ = writeln!(self.out, "{line}");
        let _ = self.out.flush();
    }
}
