//! The engine: a device, one resident model, and the calls on contexts.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use concertina_elastic::SubModel;
use concertina_elastic::package::LevelAdapters;
use concertina_formats::{ChatMessage, Model, Tokenizer};
use concertina_kv::{Arena, SlotPool};

use super::context::KvState;
use super::latency::ROWS_TOGETHER;
use super::ready::Warm;
use super::tuning::tuned;
use super::{Answer, Call, Context, GenerateOptions, Options};
use crate::encoder::{Encoder, EncoderFiles};
use crate::forward::{BatchRow, Capacity, Forward, JOBS, Job, KeyMedians, OutRow, Pass, Tail, geometry};
use crate::{Backend, Counters, Cpu, Error, Gpu, Result};

/// A device with one resident model.
pub struct Engine {
    pub(crate) model: Model,
    pub(crate) options: Options,
    pub(crate) device: Option<Device>,
    pub(crate) generation: u64,
    held: bool,
    /// Sub-models that were set, to be set again on a new device.
    pub(crate) sub_models: Vec<SubModel>,
    /// Their recovery adapters, likewise.
    pub(crate) adapters: Vec<LevelAdapters>,
    /// Levels of a package that is in use, rising.
    pub(crate) table: Vec<u32>,
    /// Hash of that package.
    pub(crate) package: Option<[u8; 32]>,
    /// Medians of keys that quantised chunks are stored without, to be written to a new device.
    pub(crate) key_medians: Option<KeyMedians>,
    /// The encoder, to be loaded again on a new device.
    pub(crate) encoder: Option<Arc<EncoderFiles>>,
}

/// What is lost with a device.
pub(crate) struct Device {
    pub backend: Backend,
    pub forward: Forward,
    pub kv: Arc<Mutex<KvState>>,
    pub encoder: Encoder,
    /// What compiled its kernels.
    pub warm: HashSet<Warm>,
    pub(crate) options: Options,
}

impl Engine {
    /// Open the model at `path`: a GGUF file, or a directory in Hugging Face's safetensors layout.
    ///
    /// # Errors
    /// If the file is refused, no adapter is found, or the model does not fit the device.
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn open(path: impl AsRef<std::path::Path>, options: Options) -> Result<Self> {
        Self::load(crate::native::open_model(path.as_ref())?, options, &mut |_, _| {}).await
    }

    /// Load an opened model; `progress` hears of bytes done and bytes in all.
    ///
    /// # Errors
    /// If no adapter is found or the model does not fit the device.
    pub async fn load(model: Model, options: Options, progress: &mut dyn FnMut(u64, u64)) -> Result<Self> {
        let mut engine = Self {
            model,
            options,
            device: None,
            generation: 0,
            held: false,
            sub_models: Vec::new(),
            adapters: Vec::new(),
            table: Vec::new(),
            package: None,
            key_medians: None,
            encoder: None,
        };
        engine.open_device(progress).await?;
        engine.ready_key_medians().await?;
        Ok(engine)
    }

    async fn open_device(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        self.device = None;
        let mut backend = open_backend(self.options.adapter.as_deref()).await?;
        backend.restrict(self.options.restrictions);
        let o = &self.options;
        let spec = &self.model.spec;
        let geometry = geometry(spec, o.exact);
        let layers = spec.layers.len() as u64;
        let capacity = Capacity {
            rows: o.rows(),
            out_rows: 16,
            context_tokens: o.context_tokens.max(1),
            contexts: o.contexts.clamp(1, 4096),
            units: (o.kv_budget_bytes / layers.max(1) / geometry.unit_bytes()) as usize,
            exact: o.exact,
            widths: std::iter::once(geometry.written).chain(o.narrow_widths()).collect(),
            centres: false,
            rotate: o.kv_rotate && !o.exact,
        };
        let table = tuned(&mut backend, &self.model, o).await?;
        let mut forward = Forward::load(&mut backend, &self.model, capacity, table, progress).await?;
        forward.set_key_medians(&mut backend, self.key_medians.as_ref()).await?;
        for sub in &self.sub_models {
            forward.set_sub_model(&mut backend, sub.clone())?;
        }
        for adapters in &self.adapters {
            forward.set_adapters(&mut backend, adapters)?;
        }
        let capacity = forward.capacity();
        let kv = KvState {
            arena: Arena::new(&geometry, capacity.units as u32),
            written: geometry.written,
            regions: SlotPool::new(capacity.contexts as u32),
        };
        self.generation += 1;
        let (kv, options) = (Arc::new(Mutex::new(kv)), self.options.clone());
        self.device = Some(Device { backend, forward, kv, encoder: Encoder::default(), warm: HashSet::new(), options });
        Ok(())
    }

    /// The device; a new one if the last one was lost.
    pub(crate) async fn device(&mut self) -> Result<&mut Device> {
        let lost = match &self.device {
            None => true,
            Some(device) => match &device.backend {
                Backend::Gpu(gpu) => gpu.is_lost(),
                Backend::Cpu(_) => false,
            },
        };
        if lost && self.held {
            return Err(Error::DeviceLost("what a call had brought there is gone".into()));
        }
        if lost {
            log::warn!("opening a new GPU device and loading the model again");
            self.open_device(&mut |_, _| {}).await?;
        }
        self.device.as_mut().ok_or_else(|| Error::DeviceLost("it could not be opened again".into()))
    }

    /// While a device is held a lost one is an error and no other is opened: who has brought keys and values there step by step
    /// must not go on with one that has none of them.
    pub(crate) fn hold_device(&mut self, held: bool) {
        self.held = held;
    }

    /// Name of the adapter.
    pub fn adapter(&self) -> String {
        self.device.as_ref().map_or_else(|| "none".into(), |device| device.backend.name())
    }

    /// Whether the adapter is a CPU.
    pub fn is_software(&self) -> bool {
        self.device.as_ref().is_some_and(|device| device.backend.is_software())
    }

    /// Lose the device on purpose, as a driver reset would: for tests.
    #[doc(hidden)]
    pub fn destroy_device(&self) {
        if let Some(destroy) = self.destroyer() {
            destroy();
        }
    }

    /// Something that loses the device when called, also in the middle of an answer: for tests. `None` without a GPU.
    #[doc(hidden)]
    pub fn destroyer(&self) -> Option<impl Fn() + 'static> {
        match &self.device {
            Some(Device { backend: Backend::Gpu(gpu), .. }) => Some(gpu.destroyer()),
            _ => None,
        }
    }

    /// What the device was asked to do since it was opened.
    pub fn counters(&self) -> Counters {
        self.device.as_ref().map_or_else(Counters::default, |device| device.backend.counters())
    }

    /// Parts that each matrix is bound in, in the order of loading: for tests.
    #[doc(hidden)]
    pub fn matrix_parts(&self) -> Vec<usize> {
        self.device.as_ref().map_or_else(Vec::new, |device| device.forward.matrix_parts())
    }

    /// The model: its shapes, tokenizer and chat template.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Text to tokens and back.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.model.tokenizer
    }

    /// Most tokens of a context.
    pub fn context_limit(&self) -> usize {
        self.device.as_ref().map_or(0, |device| {
            let capacity = device.forward.capacity();
            capacity.context_tokens.min(capacity.chunks_in_memory(&self.model.spec) * concertina_kv::CHUNK_TOKENS)
        })
    }

    /// Most tokens that this context may have.
    pub(crate) fn limit_of(&self, context: &Context) -> usize {
        match &self.device {
            Some(device) if context.managed => device.forward.capacity().context_tokens,
            _ => self.context_limit(),
        }
    }

    /// An empty context.
    ///
    /// # Errors
    /// If `Options::contexts` are open already.
    pub fn context(&self) -> Result<Context> {
        let device = self.device.as_ref().ok_or_else(|| Error::DeviceLost("no device is open".into()))?;
        Context::open(device.kv.clone(), self.generation)
    }

    /// Tokens of a conversation as the model's chat template writes it, ready for the answer.
    ///
    /// # Errors
    /// If the model has no template, or the template refuses the conversation.
    pub fn chat_tokens(&self, messages: &[ChatMessage]) -> Result<Vec<u32>> {
        let Some(template) = &self.model.chat else {
            return Err(Error::Invalid("this model has no chat template: give it plain text to continue".into()));
        };
        let text = template.render(messages, true)?;
        Ok(self.model.tokenizer.encode_prompt(&text, true)?)
    }

    /// Ask the model: `prompt` is a user's message where the model has a chat template, else text to continue. The
    /// context keeps the exchange. `on_text` gets the answer as it grows and may cancel it.
    ///
    /// # Errors
    /// If the context is full, or the device fails; the context's tokens stay as they are then, and the next call goes on
    /// from them.
    pub async fn ask(
        &mut self,
        context: &mut Context,
        prompt: &str,
        options: &GenerateOptions,
        on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Answer> {
        let tokens = if self.model.chat.is_some() && context.tokens.is_empty() {
            self.chat_tokens(&[ChatMessage { role: "user".into(), content: prompt.into() }])?
        } else {
            self.model.tokenizer.encode_prompt(prompt, false)?
        };
        self.generate(context, &tokens, options, on_text).await
    }

    /// Append `tokens` to a context and generate from there. `on_text` gets the text as it grows and may cancel it.
    ///
    /// The future may be dropped: between two pieces of prefill or two tokens, where it waits. The context then holds the
    /// tokens so far, and the next call goes on from them.
    ///
    /// # Errors
    /// As [`Engine::ask`].
    pub async fn generate(
        &mut self,
        context: &mut Context,
        tokens: &[u32],
        options: &GenerateOptions,
        mut on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Answer> {
        let mut call = Call::begin(self, context, tokens, options).await?;
        while call.prefill(self, context).await? {
            yield_now().await;
        }
        while call.decode(self, context, &mut on_text).await? {}
        Ok(call.finish(&mut on_text))
    }

    pub(crate) fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        let vocab = self.model.spec.vocab;
        match tokens.iter().find(|t| **t as usize >= vocab) {
            Some(token) => Err(Error::Invalid(format!("token {token} is not in the vocabulary of {vocab}"))),
            None => Ok(()),
        }
    }

    /// Drop what a context cannot use any more.
    pub(crate) fn settle(&mut self, context: &mut Context, level: u32) -> Result<()> {
        let device = self.device.as_mut().ok_or_else(|| Error::DeviceLost("no device is open".into()))?;
        let sub = device.forward.sub_model(level);
        context.settle(device.kv.clone(), self.generation, sub)
    }
}

impl Device {
    /// Tokens of the next piece of a prompt of which so many are left; a piece has so many at most.
    pub fn piece_of(&self, left: usize, most: usize) -> usize {
        let n = left.min(most);
        // A token more than kernels take together costs as much as all of those, and on a CPU less on its own.
        let alone = self.backend.is_software() && n == left && n > 1 && n % ROWS_TOGETHER.0 == 1;
        n - usize::from(alone)
    }

    /// Run the context's next `n` tokens, whose values the host knows.
    pub async fn append(
        &mut self,
        context: &mut Context,
        level: u32,
        n: usize,
        outs: &[OutRow],
        tail: Tail,
        density: bool,
    ) -> Result<Vec<u8>> {
        let from = context.table.tokens();
        let tokens: Vec<Option<u32>> = context.tokens[from..from + n].iter().map(|t| Some(*t)).collect();
        self.rows(context, level, &tokens, outs, tail, density).await
    }

    /// Compute keys and values at positions of a context that were computed before; all that comes before them is there.
    pub async fn recompute(&mut self, context: &mut Context, level: u32, positions: &[usize]) -> Result<()> {
        let base = self.first_entry(context);
        if std::mem::take(&mut context.table_is_new) {
            self.forward.set_table(&mut self.backend, base, &context.table.words(0));
        }
        let row = |p: &usize| BatchRow { token: Some(context.tokens[*p]), position: *p as u32, table: base };
        let rows: Vec<BatchRow> = positions.iter().map(row).collect();
        let pass = Pass { level, density: false, widths: context.table.widths(), together: false };
        self.forward.run(&mut self.backend, pass, &rows, &[], Tail::None).await.map(drop)
    }

    /// Run a context's next tokens and sample the one after them. `None`: it lies on the device.
    pub async fn sample(
        &mut self,
        context: &mut Context,
        options: &GenerateOptions,
        tokens: &[Option<u32>],
    ) -> Result<u32> {
        let out = OutRow { row: tokens.len() as u32 - 1, sampler: context.region(), wanted: 0, feed: 0 };
        let bytes = self.rows(context, options.level, tokens, &[out], Tail::Sample, options.collect_density).await?;
        let token = u32::from_le_bytes(bytes.try_into().map_err(|_| Error::Gpu("no token was read back".into()))?);
        if token == u32::MAX {
            return Err(Error::Gpu("the logits are not numbers".into()));
        }
        Ok(token)
    }

    async fn rows(
        &mut self,
        context: &mut Context,
        level: u32,
        tokens: &[Option<u32>],
        outs: &[OutRow],
        tail: Tail,
        density: bool,
    ) -> Result<Vec<u8>> {
        // A chunk that is continued can be written to after the moves.
        let mut moves: Vec<Job> = context.reopen()?.into_iter().collect();
        let first = match context.grow(tokens.len()) {
            Ok(first) => first,
            Err(e) => {
                context.drop_moves(&moves);
                return Err(e);
            }
        };
        if self.options.narrows() {
            let sealed = context.table.sealed();
            moves.extend(
                context
                    .begin_moves(JOBS - moves.len(), |chunk| self.options.width_of(chunk).filter(|_| chunk < sealed)),
            );
        }
        let done = match self.submit_moves(context, &moves) {
            Ok(()) => {
                // In the order of the queue nothing reads the old places after this batch begins.
                context.end_moves(&moves);
                self.run_rows(context, first, level, tokens, outs, tail, density).await
            }
            Err(e) => {
                context.drop_moves(&moves);
                Err(e)
            }
        };
        if done.is_err() {
            // Faults are reported late: nothing that this context has on the device can be trusted.
            context.drop_kv(0);
        }
        done
    }

    /// Tell the device to copy chunks with the next batch, and where to find them from then on.
    pub(crate) fn submit_moves(&mut self, context: &Context, moves: &[Job]) -> Result<()> {
        self.forward.requantise_with_next(&mut self.backend, moves)?;
        self.write_moves(context, moves)
    }

    /// Where to find moved chunks from the next batch on.
    pub(crate) fn write_moves(&mut self, context: &Context, moves: &[Job]) -> Result<()> {
        let base = self.first_entry(context);
        // Runs of neighbours, each in one write.
        for run in moves.chunk_by(|a, b| a.chunk + 1 == b.chunk) {
            let words: Vec<u32> = run.iter().map(|job| job.to.word()).collect();
            self.forward.set_table(&mut self.backend, base + run[0].chunk as u32, &words);
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)] // the body of `rows`
    async fn run_rows(
        &mut self,
        context: &mut Context,
        first: usize,
        level: u32,
        tokens: &[Option<u32>],
        outs: &[OutRow],
        tail: Tail,
        density: bool,
    ) -> Result<Vec<u8>> {
        let base = self.first_entry(context);
        if density {
            self.begin_density(context)?;
        }
        let entries = context.table.words(first);
        if !entries.is_empty() {
            self.forward.set_table(&mut self.backend, base + first as u32, &entries);
        }
        let from = context.table.tokens() as u32;
        let rows: Vec<BatchRow> =
            (from..).zip(tokens).map(|(position, token)| BatchRow { token: *token, position, table: base }).collect();
        let pass = Pass { level, density, widths: context.table.widths(), together: false };
        let out = self.forward.run(&mut self.backend, pass, &rows, outs, tail).await?;
        self.ran(level, rows.len(), pass.widths, tail == Tail::Sample);
        context.table.wrote(tokens.len());
        if density {
            context.density_rows += tokens.len();
        }
        Ok(out)
    }
}

/// Give whoever waits for a call the chance to drop it: between pieces nothing else waits.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    futures::future::poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn open_backend(adapter: Option<&str>) -> Result<Backend> {
    let wanted = adapter.map(str::to_owned);
    #[cfg(not(target_arch = "wasm32"))]
    let wanted = wanted.or_else(|| crate::native::env("CONCERTINA_ADAPTER"));
    if wanted.as_deref() == Some("cpu") {
        return Ok(Backend::Cpu(Cpu::default()));
    }
    Ok(Backend::Gpu(Gpu::open(wanted.as_deref()).await?))
}
