//! What a person sees while they wait: a bar on a terminal, a line for each quarter elsewhere.

use std::cell::Cell;
use std::time::Duration;

use indicatif::{BinaryBytes, DecimalBytes, ProgressBar, ProgressStyle};

/// Progress through the bytes of one model.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    label: String,
    total: u64,
    /// The next quarter to say aloud where there is no terminal.
    next_quarter: Cell<u64>,
}

impl Progress {
    pub fn new(label: &str, total: u64) -> Self {
        let bar = ProgressBar::new(total);
        // Both texts are constants; a mistake in one shows as a plain bar, not as a crash.
        let template =
            "{prefix} [{bar:32}] {decimal_bytes}/{decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(label.to_owned());
        Self { bar, label: label.to_owned(), total, next_quarter: Cell::new(1) }
    }

    /// Where an earlier pull left off: the rate and the time left are counted from here.
    pub fn begin_at(&self, done: u64) {
        if done > 0 {
            self.say(&format!("{}: continuing at {} of {}", self.label, bytes(done), bytes(self.total)));
        }
        self.bar.set_position(done);
        self.bar.reset_eta();
        self.next_quarter.set(self.quarter(done) + 1);
    }

    pub fn set(&self, done: u64) {
        self.bar.set_position(done.min(self.total));
        let quarter = self.quarter(done);
        if self.bar.is_hidden() && quarter >= self.next_quarter.get() && quarter <= 4 {
            self.next_quarter.set(quarter + 1);
            eprintln!("{}: {} of {} ({} %)", self.label, bytes(done), bytes(self.total), quarter * 25);
        }
    }

    /// What is happening just now, behind the bar.
    pub fn step(&self, what: String) {
        self.bar.set_message(what);
        self.bar.enable_steady_tick(Duration::from_millis(200));
    }

    /// A line of its own.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn quarter(&self, done: u64) -> u64 {
        (done.saturating_mul(4) / self.total.max(1)).min(4)
    }
}

/// A size for people: `98.36 MB`.
pub fn bytes(count: u64) -> String {
    DecimalBytes(count).to_string()
}

/// A size in powers of 1024, for memory.
pub fn binary_bytes(count: u64) -> String {
    BinaryBytes(count).to_string()
}
