//! What the running kernel offers: its types, its tracepoints, where its tracefs is mounted.

use crate::code::{Code, GenerateError, Kept, Reads};
use crate::format::FormatError;
use crate::recipe::{Expr, Field, Hook, Recipe, Source, Type};
use crate::sys::{self, ProgramKind, SysError};
use crate::syscalls::{Abi, Side};
use crate::tracefs::{self, TracefsError};
use crate::{events, format};
use sillage_bpf::{Assembler, Atomic, Btf, BtfError, Kind, Reg, TypeId, Width};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use thiserror::Error;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Why the kernel cannot be traced through its types.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The kernel describes no types to us.
    #[error("{VMLINUX}: {0} (a kernel built with CONFIG_DEBUG_INFO_BTF is needed)")]
    NoTypes(io::Error),
    /// It lets us not record.
    #[error(transparent)]
    Refused(#[from] SysError),
    /// What it describes cannot be read.
    #[error("{VMLINUX}: {0}")]
    Types(#[from] BtfError),
    /// Its own tracing cannot be had either.
    #[error("{0}")]
    Tracefs(#[from] TracefsError),
    /// Neither eBPF nor tracefs.
    #[error("eBPF: {programs}; tracefs: {tracefs}")]
    Nothing {
        /// Why no programs.
        programs: Box<KernelError>,
        /// Why no tracefs.
        tracefs: Box<KernelError>,
    },
    /// The environment asks for something that does not exist.
    #[error("{BACK_END_VARIABLE}={0}: ebpf or tracefs is possible")]
    Unknown(String),
}

/// The variable of the daemon's environment that forces a back end.
pub const BACK_END_VARIABLE: &str = "SILLAGE_KERNEL_BACKEND";

/// Who makes the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackEnd {
    /// eBPF programs, into our rings.
    Programs,
    /// The kernel's own tracing, whose pages are transcoded.
    Tracefs,
}

/// BTF without any type: header and an empty string.
const NO_TYPES: [u8; 25] = {
    let mut bytes = [0; 25];
    let magic = 0xeb9f_u16.to_ne_bytes();
    let (header_bytes, string_bytes) = (24u32.to_ne_bytes(), 1u32.to_ne_bytes());
    (bytes[0], bytes[1], bytes[2]) = (magic[0], magic[1], 1);
    let mut at = 0;
    while at < 4 {
        bytes[4 + at] = header_bytes[at];
        bytes[20 + at] = string_bytes[at];
        at += 1;
    }
    bytes
};

/// The running kernel.
#[derive(Debug)]
pub struct Kernel {
    btf: Btf,
    tracefs: Option<PathBuf>,
    back_end: BackEnd,
    /// Why not eBPF, if tracefs was not asked for.
    reason: Option<String>,
    /// Folders of tracefs by tracepoint; with the back end tracefs alone.
    categories: BTreeMap<String, String>,
    /// Formats that were read: the kernel holds back whoever reads one while it lets go of an event of perf.
    formats: Mutex<BTreeMap<PathBuf, Recipe>>,
}

fn find_tracefs() -> Option<PathBuf> {
    let mounted = |path: &&&str| std::fs::metadata(format!("{path}/events")).is_ok();
    TRACEFS.iter().find(mounted).map(PathBuf::from)
}

impl Kernel {
    /// Looks at the running kernel. Takes some ten milliseconds.
    ///
    /// # Errors
    /// It does not describe its types.
    pub fn running() -> Result<Kernel, KernelError> {
        let bytes = std::fs::read(VMLINUX).map_err(KernelError::NoTypes)?;
        Ok(Kernel {
            btf: Btf::parse(bytes)?,
            tracefs: find_tracefs(),
            back_end: BackEnd::Programs,
            reason: None,
            categories: BTreeMap::new(),
            formats: Mutex::default(),
        })
    }

    /// The running kernel by the best back end that it lets us use, or by the one that the environment
    /// asks for.
    ///
    /// # Errors
    /// None can be had; each is named with what would mend it.
    pub fn choose() -> Result<Kernel, KernelError> {
        let programs = || Kernel::running().and_then(|kernel| kernel.permits().map(|()| kernel));
        match std::env::var(BACK_END_VARIABLE).unwrap_or_default().as_str() {
            "ebpf" => programs(),
            "tracefs" => Kernel::through_tracefs(None),
            "" => programs().or_else(|refused| {
                Kernel::through_tracefs(Some(refused.to_string())).map_err(|tracefs| KernelError::Nothing {
                    programs: Box::new(refused),
                    tracefs: Box::new(tracefs),
                })
            }),
            other => Err(KernelError::Unknown(other.into())),
        }
    }

    /// The running kernel by its own tracing alone; `reason` says why not by programs.
    ///
    /// # Errors
    /// tracefs is not there or not ours.
    pub fn through_tracefs(reason: Option<String>) -> Result<Kernel, KernelError> {
        let path = find_tracefs().ok_or(TracefsError::None)?;
        tracefs::probe(&path)?;
        let list = path.join("available_events");
        let text = std::fs::read_to_string(&list);
        let text = text.map_err(|error| TracefsError::File { path: list, error })?;
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        let categories = pairs.map(|(category, name)| (name.to_owned(), category.to_owned())).collect();
        let btf = Btf::parse(NO_TYPES.to_vec())?;
        Ok(Kernel {
            btf,
            tracefs: Some(path),
            back_end: BackEnd::Tracefs,
            reason,
            categories,
            formats: Mutex::default(),
        })
    }

    /// Who makes the records.
    pub fn back_end(&self) -> BackEnd {
        self.back_end
    }

    /// Why the second-best back end was taken.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Whether it lets this process record: by loading a program that does nothing.
    ///
    /// # Errors
    /// The kernel's, with what is missing.
    pub fn permits(&self) -> Result<(), KernelError> {
        let Some(id) = self.tracepoint("sched_switch") else { return Ok(()) };
        let mut asm = Assembler::new();
        // What kernels before 5.12 do not have, and every program of ours needs.
        asm.store_imm(Width::B8, Reg::R10, -8, 0);
        asm.mov(Reg::R0, 0);
        asm.mov(Reg::R1, 1);
        asm.atomic(Atomic::CompareExchange, Reg::R10, -8, Reg::R1);
        asm.mov(Reg::R0, 0);
        asm.exit();
        let insns = asm.finish().unwrap_or_default();
        sys::load_program(ProgramKind::TypedTracepoint(id.0), &insns, "probe")?;
        Ok(())
    }

    /// Its types.
    pub fn btf(&self) -> &Btf {
        &self.btf
    }

    /// Where tracefs is mounted and may be looked into; events without recipes need it.
    pub fn tracefs(&self) -> Option<&PathBuf> {
        self.tracefs.as_ref()
    }

    /// Number of the type of a typed raw tracepoint.
    pub fn tracepoint(&self, name: &str) -> Option<TypeId> {
        self.btf.find(Kind::Typedef, &format!("btf_trace_{name}"))
    }

    /// Whether programs can write a field that needs no event, as contexts are, on this kernel.
    ///
    /// # Errors
    /// What it does not have.
    pub fn check_context(&self, field: &Field) -> Result<(), GenerateError> {
        Code::new(&self.btf, Vec::new(), Reads::Helper, Kept::default()).field(field)
    }

    /// The recipe for LTTng's event `name`, if this kernel has its tracepoint.
    pub fn recipe(&self, name: &str) -> Option<&'static Recipe> {
        events::find(name).filter(|recipe| match &recipe.hook {
            Hook::Tracepoint(tracepoint) if self.back_end == BackEnd::Tracefs => {
                self.categories.contains_key(tracepoint.as_ref())
            }
            Hook::Tracepoint(tracepoint) => self.tracepoint(tracepoint).is_some(),
            Hook::Format { category, name } => {
                self.format_path(category, name).is_some_and(|path| path.exists())
            }
            _ => true,
        })
    }

    fn format_path(&self, category: &str, name: &str) -> Option<PathBuf> {
        Some(self.tracefs.as_ref()?.join("events").join(category).join(name).join("format"))
    }

    /// The recipe with what it names in a record's format looked up there.
    ///
    /// # Errors
    /// There is no such format, or it has none of a field's names.
    pub fn resolved<'a>(&self, recipe: &'a Recipe) -> Result<Cow<'a, Recipe>, FormatError> {
        match &recipe.hook {
            Hook::Format { category, name } => {
                let record = self.from_format(category, name)?;
                Ok(Cow::Owned(format::named(recipe, &record)?))
            }
            Hook::Tracepoint(name) if self.back_end == BackEnd::Tracefs => {
                let category = self.categories.get(name.as_ref()).ok_or(FormatError::NoId)?;
                Ok(Cow::Owned(translated(recipe, &self.from_format(category, name)?)))
            }
            _ => Ok(Cow::Borrowed(recipe)),
        }
    }

    /// What tracefs records at one end of a 64-bit program's system call, as the event of this name: the
    /// arguments as numbers. The kernel's names of some calls begin with `new`.
    ///
    /// # Errors
    /// It has no such call.
    pub fn syscall_from_format(&self, event: &str, side: Side, call: &str) -> Result<Recipe, FormatError> {
        let end = if side == Side::Entry { "enter" } else { "exit" };
        let record = self.from_format("syscalls", &format!("sys_{end}_{call}")).or_else(|error| {
            self.from_format("syscalls", &format!("sys_{end}_new{call}")).map_err(|_| error)
        })?;
        let fields: Vec<Field> =
            record.fields.iter().filter(|field| field.name != "__syscall_nr").cloned().collect();
        Ok(Recipe { name: event.to_owned().into(), fields: fields.into(), ..record })
    }

    /// Whether tracefs has the event of a call.
    pub(crate) fn has_syscall_format(&self, abi: Abi, side: Side, call: &str) -> bool {
        let end = if side == Side::Entry { "enter" } else { "exit" };
        let has = |name: String| self.categories.contains_key(&name);
        abi == Abi::Native && (has(format!("sys_{end}_{call}")) || has(format!("sys_{end}_new{call}")))
    }

    /// A recipe from the record format of a tracepoint, named as in tracefs (`sched`, `sched_switch`).
    ///
    /// # Errors
    /// There is no tracefs, no such event, or a format that is not understood.
    pub fn from_format(&self, category: &str, name: &str) -> Result<Recipe, FormatError> {
        let path = self.format_path(category, name).ok_or(FormatError::NoTracefs)?;
        // A module that was loaded again has other numbers; these are told at once.
        let number = std::fs::read_to_string(path.with_file_name("id")).ok();
        let number = number.and_then(|number| number.trim().parse::<u32>().ok());
        let is_still =
            |recipe: &&Recipe| matches!(recipe.hook, Hook::Record { id, .. } if Some(id) == number);
        let formats = || self.formats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(recipe) = formats().get(&path).filter(is_still) {
            return Ok(recipe.clone());
        }
        let text = std::fs::read_to_string(&path);
        let text = text.map_err(|error| FormatError::Unreadable { path: path.clone(), error })?;
        let recipe = format::recipe(category, name, &text)?;
        formats().insert(path, recipe.clone());
        Ok(recipe)
    }
}

/// A table's event as its record has it: the record's fields, with LTTng's names where the table has them.
pub(crate) fn translated(table: &Recipe, record: &Recipe) -> Recipe {
    let has = |name: &str| table.fields.iter().any(|field| field.name == name);
    let field = |field: &Field| {
        let renamed = field.name.replace("pid", "tid");
        let name = if !has(&field.name) && has(&renamed) { renamed.into() } else { field.name.clone() };
        // A number of the same size may have labels, or another base.
        let is_number =
            matches!((&field.ty, &field.from), (Type::Int(_), Source::Kernel(Expr::Record { .. })));
        let labelled = |t: &&Field| {
            let same = t.name == name && t.ty.fixed_bytes() == field.ty.fixed_bytes();
            is_number && same && matches!(t.ty, Type::Int(_) | Type::Enum(..))
        };
        let ty = table.fields.iter().find(labelled).map_or(&field.ty, |t| &t.ty);
        Field { name, ty: ty.clone(), from: field.from.clone() }
    };
    let fields: Vec<Field> = record.fields.iter().map(field).collect();
    Recipe { name: table.name.clone(), hook: record.hook.clone(), fields: fields.into() }
}
