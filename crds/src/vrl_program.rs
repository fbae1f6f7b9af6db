//! Compiles VRL programs. The operator compiles a program before a rollout, so that a broken program never
//! reaches a worker; the worker compiles it to run it. Both have the same functions and the same diagnostics.
//! Functions with access to the network, the environment, the file system or secrets are not included.

use thiserror::Error;
use vrl::compiler::{
    CompilationResult, CompileConfig, Function, TypeState, compile_with_state, state::ExternalEnv,
};
use vrl::diagnostic::Formatter;
use vrl::value::{Kind, kind::Collection};

pub use vrl::compiler::Program;

/// The compiler's message, with the lines that it reports.
#[derive(Debug, Error)]
#[error("the VRL program does not compile:\n{0}")]
pub struct InvalidProgram(pub String);

/// A compiled program with the warnings of the compiler, if any.
#[derive(Debug)]
pub struct Compiled {
    /// The program, ready to run on any thread.
    pub program: Program,
    /// Warnings of the compiler; the program runs nevertheless.
    pub warnings: Option<String>,
}

/// Functions that programs may call.
pub fn functions() -> Vec<Box<dyn Function>> {
    vrl::stdlib::all()
}

/// Compiles `source`; `.` may be any value, `%` is the object described at `spec.transforms[].vrl`.
pub fn compile(source: &str) -> Result<Compiled, InvalidProgram> {
    // By default `.` is an object. This would reject programs for strings and arrays, such as parse_json!(.).
    let external = ExternalEnv::new_with_kind(Kind::any(), Kind::object(Collection::any()));
    let state = TypeState {
        external,
        ..TypeState::default()
    };
    match compile_with_state(source, &functions(), &state, CompileConfig::default()) {
        Ok(CompilationResult {
            program, warnings, ..
        }) => {
            let warnings = (!warnings.is_empty()).then(|| Formatter::new(source, warnings).to_string());
            Ok(Compiled { program, warnings })
        }
        Err(diagnostics) => Err(InvalidProgram(Formatter::new(source, diagnostics).to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_program_compiles() {
        assert!(compile(".amount = to_float!(.amount)").is_ok());
    }

    #[test]
    fn a_value_may_be_an_object_an_array_or_a_string() {
        for source in [
            ".amount = to_float!(.amount)\n.taxed = .amount * 1.19\ndel(.note)",
            ". = parse_json!(.)\n.seen = true",
            ". = map_values(array!(.)) -> |value| { to_int!(value) * 2 }",
            ".[0] = 5",
            ". = upcase(string!(.))",
            ". = merge(object!(.), {\"a\": 1})",
        ] {
            if let Err(error) = compile(source) {
                panic!("{source}: {error}");
            }
        }
    }

    #[test]
    fn a_broken_program_says_where_and_why() {
        let error = compile(".amount = to_flot!(.amount)").unwrap_err().to_string();
        assert!(error.contains("to_flot"), "{error}");
        assert!(error.contains("undefined function"), "{error}");
    }

    #[test]
    fn programs_cannot_reach_outside() {
        for call in [
            "get_env_var!(\"HOME\")",
            "http_request!(\"http://localhost\")",
            "get_hostname!()",
        ] {
            assert!(compile(&format!(".x = {call}")).is_err(), "{call} compiled");
        }
    }
}
