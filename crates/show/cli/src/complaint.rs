//! Errors and warnings in words, for both faces of reading.

use sillage_pipeline::Warning;

/// The error and its causes in one line. Errors that say their cause themselves are not followed by
/// it once more.
pub fn in_words(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Tells warnings on standard error.
pub fn warn(warnings: &[Warning]) {
    warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
}

/// Whether whoever reads the output has gone: then there is nobody to complain to.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
