//! Chat templates: the Jinja text that a model file carries, rendered with a bound on work.
//!
//! A template comes with the model, so it is input: it gets a bounded number of instructions, a bounded depth, a bounded
//! output, and no filter whose cost is a number that the template names. What remains open: joining a text with itself
//! again and again doubles its memory at each instruction, and the engine (minijinja 3.0) has no hook to stop that.

use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, ErrorKind, State, context};
use serde::Serialize;

use crate::tokenizer::catch;
use crate::{Error, Result};

/// Longest source of a template (the longest known have about 30 KB).
const MAX_SOURCE_BYTES: usize = 256 << 10;
/// Deepest nesting of macros, includes and expressions.
const MAX_DEPTH: usize = 64;
/// Instructions for any conversation, and for each message on top.
const FUEL: u64 = 200_000;
const FUEL_A_MESSAGE: u64 = 2_000;
/// How much a template may write beyond what the messages hold: in all, and for each message.
const MAX_ADDED_BYTES: usize = 1 << 20;
const MAX_ADDED_BYTES_A_MESSAGE: usize = 4 << 10;
/// Widest indentation.
const MAX_INDENT: usize = 64;
const NAME: &str = "chat";

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
}

/// A parsed chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// Parse the template's source. `bos` and `eos` are the texts of those tokens, which templates name.
    ///
    /// Blocks are trimmed as Hugging Face's `apply_chat_template` trims them; Python's string and dictionary methods,
    /// `raise_exception` and `tojson` are there, `strftime_now` gives an empty text, `str.format`, the filter `format` and
    /// `include` are not there.
    ///
    /// # Errors
    /// [`Error::Template`] with the line when the source does not parse or is too long.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(Error::Template(format!("{} bytes, at most {MAX_SOURCE_BYTES}", source.len())));
        }
        crate::chat_vet::vet(source).map_err(Error::Template)?;
        let build = || -> std::result::Result<Environment<'static>, minijinja::Error> {
            let mut environment = Environment::new();
            environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
            environment.set_recursion_limit(MAX_DEPTH);
            environment.set_unknown_method_callback(python_method);
            environment.add_function("raise_exception", raise_exception);
            environment.add_function("strftime_now", |_format: String| String::new());
            environment.add_filter("tojson", to_json);
            environment.add_filter("indent", indent);
            environment.remove_filter("format");
            environment.add_template_owned(NAME, source.to_owned())?;
            Ok(environment)
        };
        let environment = catch(build).map_err(panicked)?.map_err(|error| refused(&error))?;
        Ok(Self { environment, bos: bos.to_owned(), eos: eos.to_owned() })
    }

    /// The prompt for a conversation; with `open_answer` it ends where the assistant's answer begins.
    ///
    /// # Errors
    /// [`Error::Template`] with the reason when the template refuses the conversation, fails, or does not stop.
    pub fn render(&self, messages: &[ChatMessage], open_answer: bool) -> Result<String> {
        let held: usize = messages.iter().map(|message| message.role.len() + message.content.len()).sum();
        let count = messages.len();
        let bound =
            (held * 2).saturating_add(MAX_ADDED_BYTES).saturating_add(count.saturating_mul(MAX_ADDED_BYTES_A_MESSAGE));
        let fuel = FUEL.saturating_add(FUEL_A_MESSAGE.saturating_mul(count as u64));
        let turns: Vec<Value> = messages
            .iter()
            .map(|message| Value::from_pairs([("role", message.role.as_str()), ("content", message.content.as_str())]))
            .collect();
        let render = || -> std::result::Result<Vec<u8>, minijinja::Error> {
            let mut environment = self.environment.clone();
            environment.set_fuel(Some(fuel));
            let mut out = Bounded { text: Vec::new(), bound, full: false };
            let variables = context! {
                messages => turns,
                add_generation_prompt => open_answer,
                bos_token => self.bos.as_str(),
                eos_token => self.eos.as_str(),
            };
            let rendered = environment.get_template(NAME)?.render_captured_to(variables, &mut out).map(drop);
            if out.full {
                let problem = format!("the prompt grew beyond {bound} bytes");
                return Err(minijinja::Error::new(ErrorKind::WriteFailure, problem));
            }
            rendered.map(|()| out.text)
        };
        let text = catch(render).map_err(panicked)?.map_err(|error| refused(&error))?;
        String::from_utf8(text).map_err(|error| Error::Template(format!("not UTF-8: {error}")))
    }
}

/// Output with a bound.
struct Bounded {
    text: Vec<u8>,
    bound: usize,
    full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.bound - self.text.len() {
            self.full = true;
            return Err(io::Error::other("output bound reached"));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Rendered<T> = std::result::Result<T, minijinja::Error>;

fn refused(error: &minijinja::Error) -> Error {
    Error::Template(error.to_string())
}

fn panicked(message: String) -> Error {
    Error::Template(format!("the template engine panicked: {message}"))
}

fn failed(problem: impl Into<String>) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, problem.into())
}

/// How templates refuse a conversation.
fn raise_exception(reason: String) -> Rendered<String> {
    Err(failed(reason))
}

/// Python's methods of strings and dictionaries, but `format`, whose widths have no bound.
fn python_method(state: &mut State<'_, '_>, value: &Value, method: &str, args: &[Value]) -> Rendered<Value> {
    if method == "format" && value.as_str().is_some() {
        return Err(failed("str.format is not supported in chat templates"));
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

/// `indent` with a bounded width.
fn indent(text: String, width: Option<usize>, first: Option<bool>, options: Kwargs) -> Rendered<String> {
    let width = width.or(options.get("width")?).unwrap_or(4);
    let first = first.or(options.get("first")?).unwrap_or(false);
    let blank = options.get::<Option<bool>>("blank")?.unwrap_or(false);
    options.assert_all_used()?;
    if width > MAX_INDENT {
        return Err(failed(format!("indent by {width}, at most {MAX_INDENT}")));
    }
    let mut out = String::with_capacity(text.len());
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            out.push('\n');
        }
        if (index > 0 || first) && (blank || !line.is_empty()) {
            out.extend(std::iter::repeat_n(' ', width));
        }
        out.push_str(line);
    }
    Ok(out)
}

/// `tojson` as Python's `json.dumps(value, ensure_ascii=False)` writes: a space after commas and colons, no HTML escapes.
fn to_json(value: Value, indent: Option<usize>, options: Kwargs) -> Rendered<String> {
    let indent = indent.or(options.get("indent")?);
    for ignored in ["ensure_ascii", "sort_keys", "separators"] {
        options.get::<Option<Value>>(ignored)?;
    }
    options.assert_all_used()?;
    let mut out = Vec::new();
    let written = match indent {
        Some(width) if width > MAX_INDENT => {
            return Err(failed(format!("indent by {width}, at most {MAX_INDENT}")));
        }
        Some(width) => {
            let spaces = vec![b' '; width];
            let format = serde_json::ser::PrettyFormatter::with_indent(&spaces);
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, format))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, PythonFormat)),
    };
    written.map_err(|error| failed(format!("tojson: {error}")))?;
    String::from_utf8(out).map_err(|error| failed(format!("tojson: {error}")))
}

/// Python's spacing.
struct PythonFormat;

impl serde_json::ser::Formatter for PythonFormat {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}
