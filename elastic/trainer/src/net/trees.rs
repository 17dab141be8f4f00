//! Likelihoods of many continuations of the same beginnings, each beginning read once.

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};

use super::Pass;
use crate::ops::choices::{Choices, choice_loss};
use crate::ops::exp::log_sum_exp;
use crate::ops::head::each_row;
use crate::ops::tree::TreeRows;

/// Tokens, and what may follow some of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    /// Tokens that are read once.
    pub trunk: Vec<u32>,
    /// Continuations.
    pub branches: Vec<Branch>,
}

/// A continuation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// Tokens of the trunk that it continues.
    pub at: usize,
    /// Its own.
    pub ids: Vec<u32>,
    /// How many of those at its end are scored. Where all are, `at` is not 0.
    pub scored: usize,
}

impl Tree {
    /// A tree without continuations.
    pub fn new(trunk: Vec<u32>) -> Self {
        Self { trunk, branches: Vec::new() }
    }

    /// Add `tokens`, of which the last `scored` are scored: what they share with the trunk is not computed again.
    pub fn add(&mut self, tokens: &[u32], scored: usize) {
        let own = scored.max(1);
        let shared = self.trunk.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        let at = shared.min(tokens.len().saturating_sub(own));
        self.branches.push(Branch { at, ids: tokens[at..].to_vec(), scored });
    }

    /// Rows that a pass computes.
    pub fn rows(&self) -> usize {
        self.trunk.len() + self.branches.iter().map(|b| b.ids.len()).sum::<usize>()
    }
}

/// Trees as the rows of one pass.
struct Laid {
    ids: Vec<u32>,
    rows: Vec<TreeRows>,
    /// Of each tree's branches: the row that predicts each scored token, and the token.
    predictions: Vec<Vec<Vec<(usize, u32)>>>,
}

fn laid(trees: &[Tree]) -> Result<Laid> {
    let mut laid = Laid { ids: Vec::new(), rows: Vec::new(), predictions: Vec::new() };
    for tree in trees {
        let first = laid.ids.len();
        laid.ids.extend(&tree.trunk);
        let mut predictions = Vec::with_capacity(tree.branches.len());
        for branch in &tree.branches {
            let (own, begin) = (branch.ids.len(), laid.ids.len());
            ensure!(branch.at <= tree.trunk.len() && branch.scored <= own, "a branch past its trunk or its tokens");
            ensure!(branch.scored < own || branch.at > 0, "nothing stands before a token that is scored");
            let row = |i: usize| if i > 0 { begin + i - 1 } else { first + branch.at - 1 };
            predictions.push((own - branch.scored..own).map(|i| (row(i), branch.ids[i])).collect());
            laid.ids.extend(&branch.ids);
        }
        laid.predictions.push(predictions);
        let branches = tree.branches.iter().map(|b| (b.at, b.ids.len())).collect();
        laid.rows.push(TreeRows { trunk: tree.trunk.len(), branches });
    }
    Ok(laid)
}

/// A question as a tree: a branch a choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The question and its choices.
    pub tree: Tree,
    /// The right one.
    pub right: usize,
}

impl Pass<'_> {
    /// [`choice_loss`] of questions: a scalar with a gradient.
    ///
    /// # Errors
    /// As [`Pass::surprise_of_branches`].
    pub fn choice_loss(&self, questions: &[Asked]) -> Result<Tensor> {
        let trees: Vec<Tree> = questions.iter().map(|question| question.tree.clone()).collect();
        let Laid { ids, rows, predictions } = laid(&trees)?;
        let each = predictions.into_iter().zip(questions);
        let choices = each.map(|(tokens, question)| Choices { tokens, right: question.right }).collect();
        Ok(choice_loss(&self.hidden_of_trees(ids, &rows)?, self.head(), choices)?)
    }

    /// Surprise in nats at the scored tokens of every branch together, tree by tree.
    ///
    /// # Errors
    /// If a branch scores a token that nothing stands before, or continues what is not there; as [`Pass::hidden`].
    pub fn surprise_of_branches(&self, trees: &[Tree]) -> Result<Vec<Vec<f64>>> {
        let Laid { ids, rows, predictions } = laid(trees)?;
        let predictions: Vec<(usize, u32)> = predictions.into_iter().flatten().flatten().collect();
        let hidden = self.hidden_of_trees(ids, &rows)?;
        let picked: Vec<u32> = predictions.iter().map(|(row, _)| *row as u32).collect();
        let picked = hidden.index_select(&Tensor::from_vec(picked, predictions.len(), &Device::Cpu)?, 0)?;
        let surprises =
            each_row(&picked, self.head(), |i, row| f64::from(log_sum_exp(row) - row[predictions[i].1 as usize]))?;
        let mut surprises = surprises.into_iter();
        let mut sum = |branch: &Branch| surprises.by_ref().take(branch.scored).sum::<f64>();
        Ok(trees.iter().map(|tree| tree.branches.iter().map(&mut sum).collect()).collect())
    }

    /// The same for any number of trees, a batch at a time.
    ///
    /// # Errors
    /// As [`Pass::surprise_of_branches`].
    pub fn surprise_of_many(&self, trees: &[Tree]) -> Result<Vec<Vec<f64>>> {
        /// Rows of a batch, unless one tree alone has more.
        const ROWS: usize = 768;
        let mut out = Vec::with_capacity(trees.len());
        let mut first = 0;
        while first < trees.len() {
            let mut rows = trees[first].rows();
            let mut end = first + 1;
            while end < trees.len() && rows + trees[end].rows() <= ROWS {
                rows += trees[end].rows();
                end += 1;
            }
            out.extend(self.surprise_of_branches(&trees[first..end])?);
            first = end;
        }
        Ok(out)
    }
}
