// What changes from one replay of a recording to the next.
struct Step {
    rows: u32,              // rows of the batch: one token of one context each
    out_rows: u32,          // rows that get logits
    splits: u32,            // parts that attention cuts the chunks of a context into
    chunks_per_split: u32,
    batch_chunks: u32,      // stride of per-chunk statistics: the most chunks any row sees
    density: u32,           // 1: collect each chunk's share of the probability
    span: u32,              // rows that attention may take together: all of a batch of one context, else 1
    jobs: u32,              // chunks that change their width
    apart: u32,             // 1: each row is the only one of its context, and attention is not split
}
// In a storage buffer: lavapipe compiles a shader anew for every value of a uniform that bounds a loop, and these change
// with every step.
@group(0) @binding(0) var<storage, read> step: Step;
