use super::*;

/// SplitMix64: the crate needs no other for its tests.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn text(&mut self) -> String {
        let pieces = ["a", "Ü", "word", "字", "…", "!", " ", " ", "\n", "\n\n", "\t", "\u{a0}", "\u{3000}", "\r\n"];
        (0..self.below(60)).map(|_| pieces[self.below(pieces.len())]).collect()
    }
}

#[test]
fn words_cover_the_text_and_hold_no_white_space() {
    let mut random = Random(1);
    for _ in 0..2000 {
        let text = random.text();
        let words = words(&text);
        let split: Vec<&str> = words.iter().map(|word| &text[word.text.clone()]).collect();
        assert_eq!(split, text.split_whitespace().collect::<Vec<_>>(), "{text:?}");
        let whole: String = words.iter().map(|word| &text[word.whole.clone()]).collect();
        if !words.is_empty() {
            assert_eq!(whole, text);
        }
        assert!(words.iter().all(|w| w.whole.start <= w.text.start && w.text.end <= w.whole.end));
    }
}

#[test]
fn what_is_kept_is_as_much_as_asked_for_and_the_best_of_it() {
    let mut random = Random(2);
    for _ in 0..2000 {
        let text = random.text();
        let words = words(&text);
        let n = words.len();
        let scores: Vec<f32> = (0..n)
            .map(|_| match random.below(12) {
                0 => f32::NAN,
                1 => f32::NEG_INFINITY,
                k => k as f32 / 4.0,
            })
            .collect();
        let keep: Vec<bool> = (0..n).map(|_| random.below(6) == 0).collect();
        let percent = random.below(111) as u32;
        let kept = shorten(&words, &scores, percent, &keep);
        assert!(kept.windows(2).all(|w| w[0] < w[1]) && kept.iter().all(|i| *i < n), "in their order, each once");
        let marked = keep.iter().filter(|k| **k).count();
        assert_eq!(kept.len(), (n * percent.min(100) as usize).div_ceil(100).max(marked));
        assert!((0..n).all(|i| !keep[i] || kept.contains(&i)), "marked words stay");
        let value = |i: usize| if scores[i].is_nan() { (0, 0.0) } else { (1, scores[i]) };
        for dropped in (0..n).filter(|i| !kept.contains(i)) {
            for &other in kept.iter().filter(|i| !keep[**i]) {
                assert!(value(other) >= value(dropped), "{other} stayed for {dropped}");
                assert!(value(other) > value(dropped) || other < dropped, "of equals the later goes");
            }
        }
        let more = shorten(&words, &scores, percent + 10, &keep);
        assert!(kept.iter().all(|i| more.contains(i)), "a higher level keeps all that a lower one does");
    }
}

#[test]
fn joined_words_are_the_kept_ones_and_lines_stay_apart() {
    let mut random = Random(3);
    for _ in 0..2000 {
        let text = random.text();
        let words = words(&text);
        let kept: Vec<usize> = (0..words.len()).filter(|_| random.below(3) > 0).collect();
        let joined = join(&text, &words, &kept);
        let expected: Vec<&str> = kept.iter().map(|i| &text[words[*i].text.clone()]).collect();
        assert_eq!(joined.split_whitespace().collect::<Vec<_>>(), expected, "{text:?}");
        for pair in kept.windows(2) {
            let between = &text[words[pair[0]].text.end..words[pair[1]].text.start];
            let count = |part: &str| part.matches('\n').count();
            let at = kept.iter().position(|i| *i == pair[0]).unwrap();
            let new = super::words(&joined);
            let gap = &joined[new[at].text.end..new[at + 1].text.start];
            assert_eq!(count(gap) > 0, count(between) > 0, "a line break is kept where there was one");
        }
        if kept.len() == words.len() && !words.is_empty() {
            assert_eq!(joined, text);
        }
    }
}

#[test]
fn a_template_keeps_its_lines() {
    let text = "  Question: Where do fish\nlive in?\n\nAnswer: ";
    let words = words(text);
    let keep: Vec<bool> = words.iter().map(|w| ["Question:", "Answer:"].contains(&&text[w.text.clone()])).collect();
    let scores = [0.0, 0.0, 0.0, 1.0, 0.5, 0.0, 0.0];
    let kept = shorten(&words, &scores, 40, &keep);
    assert_eq!(join(text, &words, &kept), "  Question: fish\n\nAnswer: ");
    assert_eq!(join(text, &words, &shorten(&words, &scores, 0, &keep)), "  Question:\n\nAnswer: ");
    assert_eq!(shorten(&words, &[], 100, &[]), (0..7).collect::<Vec<_>>(), "scores that are missing do no harm");
    assert_eq!(join(text, &words, &[]), "");
    assert!(super::words(" \n ").is_empty() && shorten(&[], &[], 50, &[]).is_empty());
}
