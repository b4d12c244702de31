//! What the running kernel offers: its types, its tracepoints, where its tracefs is mounted.

use crate::recipe::{Hook, Recipe};
use crate::sys::{self, ProgramKind, SysError};
use crate::{events, format};
use sillage_bpf::{Assembler, Btf, BtfError, Kind, Reg, TypeId};
use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
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
}

/// The running kernel.
#[derive(Debug)]
pub struct Kernel {
    btf: Btf,
    tracefs: Option<PathBuf>,
}

impl Kernel {
    /// Looks at the running kernel. Takes some ten milliseconds.
    ///
    /// # Errors
    /// It does not describe its types.
    pub fn running() -> Result<Kernel, KernelError> {
        let bytes = std::fs::read(VMLINUX).map_err(KernelError::NoTypes)?;
        let mounted = |path: &&&str| std::fs::metadata(format!("{path}/events")).is_ok();
        let tracefs = TRACEFS.iter().find(mounted).map(PathBuf::from);
        Ok(Kernel { btf: Btf::parse(bytes)?, tracefs })
    }

    /// Whether it lets this process record: by loading a program that does nothing.
    ///
    /// # Errors
    /// The kernel's, with what is missing.
    pub fn permits(&self) -> Result<(), KernelError> {
        let Some(id) = self.tracepoint("sched_switch") else { return Ok(()) };
        let mut asm = Assembler::new();
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

    /// The recipe for LTTng's event `name`, if this kernel has its tracepoint.
    pub fn recipe(&self, name: &str) -> Option<&'static Recipe> {
        events::find(name).filter(|recipe| match &recipe.hook {
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
    pub fn resolved<'a>(&self, recipe: &'a Recipe) -> Result<Cow<'a, Recipe>, format::FormatError> {
        let Hook::Format { category, name } = &recipe.hook else { return Ok(Cow::Borrowed(recipe)) };
        let record = self.from_format(category, name)?;
        Ok(Cow::Owned(format::named(recipe, &record)?))
    }

    /// A recipe from the record format of a tracepoint, named as in tracefs (`sched`, `sched_switch`).
    ///
    /// # Errors
    /// There is no tracefs, no such event, or a format that is not understood.
    pub fn from_format(&self, category: &str, name: &str) -> Result<Recipe, format::FormatError> {
        let path = self.format_path(category, name).ok_or(format::FormatError::NoTracefs)?;
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format::FormatError::Unreadable { path, error })?;
        format::recipe(category, name, &text)
    }
}
