//! How weights lie on the device.
//!
//! A matrix of `rows × cols` is cut into row blocks, and each row block into panels one quant block wide. A region, one
//! panel of one row block of R rows, holds R quant blocks, field by field:
//!
//! ```text
//! [vec4 j = 0][row 0..R] [vec4 j = 1][row 0..R] …   quants, 16 bytes a row each
//! [word][row 0..R] …                                fifth bits, or scale and minimum, 4 bytes a row each
//! [f16][row 0..R]                                   lone scales, 2 bytes a row
//! ```
//!
//! No bit of a block changes and no padding is added but to fill the last row block, so a region takes R times the bytes
//! of a GGUF block. Matrices that sub-models slice by rows (Q, K, V, gate, up) have row blocks of 32 rows: a prefix of
//! rows is a prefix of the buffer. Matrices sliced by columns (O, down) are one row block: a prefix of panels is a prefix
//! of the buffer. Neighbouring threads take neighbouring rows and read neighbouring words.

/// Format of a stored weight. Names and block layouts are GGUF's; the float formats are blocks of 32 here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types, missing_docs)]
pub enum WeightFormat {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4_K,
    Q5_K,
    Q6_K,
}

/// A run of bytes of a quant block, and the plane of a region that it goes to.
struct Field {
    /// First byte in the stored block.
    from: usize,
    /// Bytes a row: a multiple of 16 (that many vec4 planes), 4 or 2.
    bytes: usize,
}

const fn field(from: usize, bytes: usize) -> Field {
    Field { from, bytes }
}

impl WeightFormat {
    /// All formats, in the order of their declaration.
    pub const ALL: [WeightFormat; 11] = [
        WeightFormat::F32,
        WeightFormat::F16,
        WeightFormat::BF16,
        WeightFormat::Q4_0,
        WeightFormat::Q4_1,
        WeightFormat::Q5_0,
        WeightFormat::Q5_1,
        WeightFormat::Q8_0,
        WeightFormat::Q4_K,
        WeightFormat::Q5_K,
        WeightFormat::Q6_K,
    ];

    /// Name as it stands in variant names: `q4_1`.
    pub const fn name(self) -> &'static str {
        match self {
            WeightFormat::F32 => "f32",
            WeightFormat::F16 => "f16",
            WeightFormat::BF16 => "bf16",
            WeightFormat::Q4_0 => "q4_0",
            WeightFormat::Q4_1 => "q4_1",
            WeightFormat::Q5_0 => "q5_0",
            WeightFormat::Q5_1 => "q5_1",
            WeightFormat::Q8_0 => "q8_0",
            WeightFormat::Q4_K => "q4_k",
            WeightFormat::Q5_K => "q5_k",
            WeightFormat::Q6_K => "q6_k",
        }
    }

    /// Columns of a panel: elements of a block.
    pub const fn panel_cols(self) -> usize {
        match self {
            WeightFormat::Q4_K | WeightFormat::Q5_K | WeightFormat::Q6_K => 256,
            _ => 32,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            WeightFormat::F32 => 128,
            WeightFormat::F16 | WeightFormat::BF16 => 64,
            WeightFormat::Q4_0 => 18,
            WeightFormat::Q4_1 => 20,
            WeightFormat::Q5_0 => 22,
            WeightFormat::Q5_1 => 24,
            WeightFormat::Q8_0 => 34,
            WeightFormat::Q4_K => 144,
            WeightFormat::Q5_K => 176,
            WeightFormat::Q6_K => 210,
        }
    }

    /// Fields of a stored block in the order of their planes.
    const fn fields(self) -> &'static [Field] {
        const F32: &[Field] = &[field(0, 128)];
        const F16: &[Field] = &[field(0, 64)];
        const Q4_0: &[Field] = &[field(2, 16), field(0, 2)];
        const Q4_1: &[Field] = &[field(4, 16), field(0, 4)];
        const Q5_0: &[Field] = &[field(6, 16), field(2, 4), field(0, 2)];
        const Q5_1: &[Field] = &[field(8, 16), field(4, 4), field(0, 4)];
        const Q8_0: &[Field] = &[field(2, 32), field(0, 2)];
        const Q4_K: &[Field] = &[field(16, 128), field(0, 16)];
        const Q5_K: &[Field] = &[field(48, 128), field(16, 32), field(0, 16)];
        const Q6_K: &[Field] = &[field(0, 208), field(208, 2)];
        match self {
            WeightFormat::F32 => F32,
            WeightFormat::F16 | WeightFormat::BF16 => F16,
            WeightFormat::Q4_0 => Q4_0,
            WeightFormat::Q4_1 => Q4_1,
            WeightFormat::Q5_0 => Q5_0,
            WeightFormat::Q5_1 => Q5_1,
            WeightFormat::Q8_0 => Q8_0,
            WeightFormat::Q4_K => Q4_K,
            WeightFormat::Q5_K => Q5_K,
            WeightFormat::Q6_K => Q6_K,
        }
    }
}

/// Rows of a row block of a matrix that sub-models slice by rows.
const ROW_BLOCK: usize = 32;

/// Where the blocks of one matrix lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PanelLayout {
    /// Format of the blocks.
    pub format: WeightFormat,
    /// Output features.
    pub rows: usize,
    /// Input features, a whole number of panels.
    pub cols: usize,
    /// Rows of a row block, a multiple of 32.
    pub row_block: usize,
}

impl PanelLayout {
    /// For a matrix whose prefixes are prefixes of rows. `None` unless `cols` is a whole number of panels.
    pub fn by_rows(format: WeightFormat, rows: usize, cols: usize) -> Option<Self> {
        cols.is_multiple_of(format.panel_cols()).then_some(Self { format, rows, cols, row_block: ROW_BLOCK })
    }

    /// For a matrix whose prefixes are prefixes of panels. `None` unless `cols` is a whole number of panels.
    pub fn by_cols(format: WeightFormat, rows: usize, cols: usize) -> Option<Self> {
        let row_block = rows.next_multiple_of(ROW_BLOCK);
        cols.is_multiple_of(format.panel_cols()).then_some(Self { format, rows, cols, row_block })
    }

    /// Panels of a row block.
    pub fn panels(&self) -> usize {
        self.cols / self.format.panel_cols()
    }

    /// Row blocks, the last one filled up.
    pub fn row_blocks(&self) -> usize {
        self.rows.div_ceil(self.row_block)
    }

    /// Bytes of one region.
    pub fn region_bytes(&self) -> usize {
        self.row_block * self.format.block_bytes()
    }

    /// Bytes of one row block.
    pub fn row_block_bytes(&self) -> usize {
        self.panels() * self.region_bytes()
    }

    /// Bytes of the whole matrix.
    pub fn bytes(&self) -> usize {
        self.row_blocks() * self.row_block_bytes()
    }

    /// Bytes of one row as it is stored in a file: its blocks side by side.
    pub fn stored_row_bytes(&self) -> usize {
        self.panels() * self.format.block_bytes()
    }

    /// Put rows `r..r + k` of a row block into place. `stored` holds their panels from `first_panel` on, as in the file:
    /// for each row, blocks side by side, `row_stride` bytes from row to row. `region` begins at that panel's region of
    /// the row block and holds as many regions as `panels`.
    ///
    /// # Panics
    /// If a slice is too short.
    pub fn pack(&self, stored: &[u8], row_stride: usize, r: usize, k: usize, panels: usize, region: &mut [u8]) {
        let block = self.format.block_bytes();
        for row in 0..k {
            for panel in 0..panels {
                let from = &stored[row * row_stride + panel * block..][..block];
                let to = &mut region[panel * self.region_bytes()..][..self.region_bytes()];
                self.place(r + row, |at, (start, len)| to[at..at + len].copy_from_slice(&from[start..start + len]));
            }
        }
    }

    /// The block of row `r` of a region, as it was stored.
    pub fn unpack(&self, region: &[u8], r: usize, block: &mut [u8]) {
        self.place(r, |at, (from, len)| block[from..from + len].copy_from_slice(&region[at..at + len]));
    }

    /// Calls `f(byte in the region, (byte in the block, bytes))` for each run of the block of row `r`.
    pub(crate) fn place(&self, r: usize, mut f: impl FnMut(usize, (usize, usize))) {
        let mut plane = 0;
        for field in self.format.fields() {
            let step = field.bytes.min(16);
            for j in (0..field.bytes).step_by(step) {
                f(plane + r * step, (field.from + j, step));
                plane += self.row_block * step;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_survives_packing_bit_for_bit() {
        for format in WeightFormat::ALL {
            for layout in [
                PanelLayout::by_rows(format, 37, format.panel_cols() * 3).unwrap(),
                PanelLayout::by_cols(format, 37, format.panel_cols() * 3).unwrap(),
            ] {
                let stored: Vec<u8> =
                    (0..layout.rows * layout.stored_row_bytes()).map(|i| (i * 31 % 251) as u8).collect();
                let mut packed = vec![0u8; layout.bytes()];
                for r in 0..layout.rows {
                    let (at, r_in) = (r / layout.row_block * layout.row_block_bytes(), r % layout.row_block);
                    let row = &stored[r * layout.stored_row_bytes()..][..layout.stored_row_bytes()];
                    layout.pack(row, row.len(), r_in, 1, layout.panels(), &mut packed[at..]);
                }
                for r in 0..layout.rows {
                    for p in 0..layout.panels() {
                        let at = r / layout.row_block * layout.row_block_bytes() + p * layout.region_bytes();
                        let mut block = vec![0u8; format.block_bytes()];
                        layout.unpack(&packed[at..], r % layout.row_block, &mut block);
                        let from = r * layout.stored_row_bytes() + p * format.block_bytes();
                        assert_eq!(block, stored[from..from + format.block_bytes()], "{format:?} row {r} panel {p}");
                    }
                }
            }
        }
    }
}
