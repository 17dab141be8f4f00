//! Prompts to shorten: a question, alone or after examples.

use concertina_elastic::prompt::{Word, join, shorten, words};

use crate::data::{Question, TASKS};
use crate::random::Random;

/// Words that frame a question. Those of the question itself are never dropped; those of examples may be.
const FRAME: [&str; 3] = ["Question:", "Goal:", "Answer:"];

/// What prompts are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Every second question stands after two examples; all words but a question's frame may be dropped.
    Mixed,
    /// Every question stands after so many examples, and all of its words stay: an app's prompt before what it is asked.
    Examples(usize),
}

impl Kind {
    fn examples(self, place: usize) -> usize {
        match self {
            Self::Mixed if place.is_multiple_of(2) => 0,
            Self::Mixed => 2,
            Self::Examples(count) => count,
        }
    }
}

/// A prompt with the answers that may follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// All of it.
    pub text: String,
    /// Its words.
    pub words: Vec<Word>,
    /// Words that stay at every level.
    pub keep: Vec<bool>,
    /// First word of the question itself.
    pub question: usize,
    /// Examples before it.
    pub examples: usize,
    /// Place of its task in [`TASKS`].
    pub task: usize,
    /// Answers, each with the space before it.
    pub choices: Vec<String>,
    /// The right one.
    pub right: usize,
}

impl Prompt {
    /// `question` after `examples`, each of them with its right answer.
    pub fn new(question: &Question, examples: &[&Question], kind: Kind) -> Self {
        let mut text = String::new();
        for example in examples {
            text.push_str(&format!("{} {}\n\n", example.query, example.choices[example.right]));
        }
        let begins = text.len();
        text.push_str(&question.query);
        let words = words(&text);
        let first = words.iter().take_while(|word| word.text.start < begins).count();
        let whole = matches!(kind, Kind::Examples(_));
        let stays = |(i, word): (usize, &Word)| i >= first && (whole || FRAME.contains(&&text[word.text.clone()]));
        Self {
            keep: words.iter().enumerate().map(stays).collect(),
            question: first,
            examples: examples.len(),
            task: question.task,
            choices: question.choices.iter().map(|choice| format!(" {choice}")).collect(),
            right: question.right,
            words,
            text,
        }
    }

    /// The text at a prompt level by these scores of words.
    pub fn shortened(&self, scores: &[f32], percent: u32) -> String {
        self.text_of(&shorten(&self.words, scores, percent, &self.keep))
    }

    /// The text without some words.
    pub fn without(&self, dropped: &[usize]) -> String {
        let kept: Vec<usize> = (0..self.words.len()).filter(|i| !dropped.contains(i)).collect();
        self.text_of(&kept)
    }

    fn text_of(&self, kept: &[usize]) -> String {
        let mut text = join(&self.text, &self.words, kept);
        text.truncate(text.trim_end().len());
        text
    }

    /// Words that examples' lines are made of, line by line.
    pub fn example_lines(&self) -> Vec<Vec<usize>> {
        let mut lines: Vec<Vec<usize>> = Vec::new();
        let mut end = 0;
        for (i, word) in self.words.iter().enumerate().take(self.question) {
            match lines.last_mut() {
                Some(line) if !self.text[end..word.text.start].contains('\n') => line.push(i),
                _ => lines.push(vec![i]),
            }
            end = word.text.end;
        }
        lines
    }
}

/// `count` prompts from `questions`, in an order drawn from `seed`; examples are of the question's task, drawn from
/// `pool`. Questions of BoolQ are left out: they are several times as long, and ask for yes or no.
pub fn prompts(questions: &[Question], pool: &[Question], count: usize, seed: u64, kind: Kind) -> Vec<Prompt> {
    let asked = |question: &&Question| TASKS[question.task] != "boolq";
    let mut random = Random::new(seed);
    let mut order: Vec<&Question> = questions.iter().filter(asked).collect();
    random.shuffle(&mut order);
    let mut by_task: Vec<Vec<&Question>> = vec![Vec::new(); TASKS.len()];
    pool.iter().for_each(|question| by_task[question.task].push(question));
    let prompt = |(i, question): (usize, &Question)| {
        // Draws do not depend on the place, so that fewer prompts are the first of more.
        let others: Vec<&Question> =
            by_task[question.task].iter().copied().filter(|other| *other != question).collect();
        let drawn = |_| others[random.below(others.len())];
        let count = if others.is_empty() { 0 } else { kind.examples(i) };
        Prompt::new(question, &(0..count).map(drawn).collect::<Vec<_>>(), kind)
    };
    order.into_iter().take(count).enumerate().map(prompt).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(query: &str) -> Question {
        Question { task: 0, query: query.into(), choices: vec!["no".into(), "the sea".into()], right: 1 }
    }

    #[test]
    fn the_frame_of_the_question_stays() {
        let (asked, example) =
            (question("Question: Where do fish live?\nAnswer:"), question("Question: Why?\nAnswer:"));
        let prompt = Prompt::new(&asked, &[&example], Kind::Mixed);
        assert_eq!(prompt.text, "Question: Why?\nAnswer: the sea\n\nQuestion: Where do fish live?\nAnswer:");
        assert_eq!((prompt.question, prompt.words.len()), (5, 11));
        assert_eq!(prompt.example_lines(), [vec![0, 1], vec![2, 3, 4]]);
        let scores: Vec<f32> = (0..11).map(|i| if i == 8 { 1.0 } else { 0.0 }).collect();
        assert_eq!(prompt.shortened(&scores, 20), "Question: fish\nAnswer:");
        assert_eq!(prompt.without(&[0, 1, 2, 3, 4]), "Question: Where do fish live?\nAnswer:");
        assert_eq!(prompt.choices[prompt.right], " the sea");
        let whole = Prompt::new(&asked, &[&example], Kind::Examples(1));
        assert_eq!(whole.shortened(&scores, 20), "Question: Where do fish live?\nAnswer:", "the question stays");
        assert_eq!(whole.shortened(&[0.0, 1.0], 60), "Why?\n\nQuestion: Where do fish live?\nAnswer:");
    }

    #[test]
    fn fewer_prompts_are_the_first_of_more() {
        let pool: Vec<Question> = (0..20).map(|i| question(&format!("Question: {i}?\nAnswer:"))).collect();
        let of = |count, seed| prompts(&pool, &pool, count, seed, Kind::Mixed);
        let (few, many) = (of(4, 1), of(9, 1));
        assert_eq!(few, many[..4]);
        assert_eq!((many[0].examples, many[1].examples), (0, 2));
        assert_ne!(few, of(4, 2));
        assert!(prompts(&pool, &pool, 4, 1, Kind::Examples(5)).iter().all(|prompt| prompt.examples == 5));
    }
}
