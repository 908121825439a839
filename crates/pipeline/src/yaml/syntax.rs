//! What a YAML parser says, in words for somebody who has never read the YAML specification. A message that is not known
//! here is passed on as it is.

use serde_saphyr::granit_parser::{ErrorKind, ScanError};

use crate::diagnostic::Diagnostic;
use crate::limits::MAX_DEPTH;

use super::parse::position;

/// The fault that stopped the parser.
pub(super) fn explain(error: &ScanError) -> Diagnostic {
    let at = Some(position(error.marker()));
    let fault = |problem: &str, hint: &str| Diagnostic::new(at, "", problem).hint(hint);
    match error.kind() {
        ErrorKind::TabInBlockIndentation | ErrorKind::TabInIndentation | ErrorKind::TabNotAllowed => {
            fault("a tab stands where the line is indented", "indent with spaces")
        }
        ErrorKind::TabAtBlockScalarStart => fault("a text block begins with a tab", "indent with spaces"),
        ErrorKind::InvalidQuotedScalarIndent | ErrorKind::UnclosedQuotedScalar => fault(
            "a quoted text does not end before this place",
            "is its closing quote missing?",
        ),
        ErrorKind::InvalidTrailingSingleQuotedScalar | ErrorKind::InvalidTrailingDoubleQuotedScalar => fault(
            "something follows a quoted text",
            "put all of it in the quotes, or write a quote inside twice",
        ),
        ErrorKind::UnknownQuotedScalarEscape => fault(
            "an unknown escape in a text with double quotes",
            "write \\\\ for a backslash, or use single quotes",
        ),
        ErrorKind::UnclosedFlowCollection { open } => fault(&format!("a {open} that is not closed"), "close it"),
        ErrorKind::MismatchedFlowCollectionEnd { open, close } => fault(
            &format!("{open} is closed by {close}"),
            "close each bracket with its own kind",
        ),
        ErrorKind::MisplacedFlowCollectionEnd => fault("a closing bracket that was not opened", "remove it"),
        ErrorKind::ExpectedFlowMappingSeparator => fault(
            "an entry within { } that does not end",
            "put a comma between entries, and } at the end",
        ),
        ErrorKind::ExpectedFlowSequenceSeparator => fault(
            "an item within [ ] that does not end",
            "put a comma between items, and ] at the end",
        ),
        ErrorKind::ExpectedBlockMappingKey | ErrorKind::InvalidIndentation => fault(
            "the indentation fits no line above",
            "align it with the keys that it belongs to",
        ),
        ErrorKind::ExpectedBlockSequenceEntry => fault(
            "the indentation fits no line above",
            "align it with the `- ` that it belongs to",
        ),
        ErrorKind::BlockSequenceEntryNotAllowed => fault(
            "a list cannot begin here",
            "begin it on a line of its own, below its key",
        ),
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => fault(
            "a second `: ` on the same line, or a key that is indented too far",
            "put a text that holds `: ` in quotes",
        ),
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => {
            fault("this line has no `: ` behind its key", "write key: value")
        }
        ErrorKind::UnknownAnchor => fault(
            "an alias to an anchor that is not defined above it",
            "write the value out, or put a text that begins with * in quotes",
        ),
        ErrorKind::UnexpectedCharacter { character } if character.is_control() => {
            let problem = format!("the character {} cannot stand in YAML", character.escape_default());
            fault(&problem, "write it as an escape in double quotes")
        }
        ErrorKind::UnexpectedCharacter { character } => {
            fault(&format!("a text cannot begin with {character}"), "put it in quotes")
        }
        ErrorKind::RecursionLimitExceeded => too_deep(at),
        other => Diagnostic::new(at, "", format!("this is not YAML: {other}")),
    }
}

/// Lists and maps beyond the limit.
pub(super) fn too_deep(at: Option<crate::model::Position>) -> Diagnostic {
    Diagnostic::new(at, "", format!("lists and maps are nested more than {MAX_DEPTH} deep"))
}
