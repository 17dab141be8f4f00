// What the tiled matrix kernels share: 256 threads make a tile of 64 features × 16 ROWS_EACH rows.

override ROWS_EACH: u32 = 4u;   // rows of a thread: 4, 2 or 1

// Where feature f of the tile lies in workgroup memory: eight threads that each read every fourth feature hit eight
// different groups of banks, and so do eight that write neighbouring ones.
fn feature_place(f: u32) -> u32 { return f ^ ((f >> 3u) & 3u); }
