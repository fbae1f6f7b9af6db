//! The function `parse_json` for programs that must not lose digits: as VRL's own, but it returns an error
//! if the text has a number that neither 64-bit integers nor 64-bit floats can hold. With `max_depth`, it
//! does not count numbers in the parts that stay text.

use ::vrl::{
    compiler::{
        Context, Expression, Function, Resolved, TypeInfo, TypeState,
        function::{ArgumentList, Compiled, Example, FunctionCompileContext, Parameter},
    },
    prelude::VrlValueConvert,
    value::{ObjectMap, Value},
};
use serde_json::value::RawValue;

use super::numbers::any_long;

const NAME: &str = "parse_json";

/// Depths that VRL accepts for `max_depth`.
const DEPTHS: std::ops::RangeInclusive<i64> = 1..=128;

/// Replaces VRL's `parse_json` in `functions`.
pub(super) fn replace_in(functions: &mut [Box<dyn Function>]) {
    for function in functions {
        if function.identifier() == NAME {
            let vrls = std::mem::replace(function, Box::new(::vrl::stdlib::Del));
            *function = Box::new(ParseJson(vrls));
        }
    }
}

/// Declared as VRL's function in every respect; only its calls differ.
#[derive(Debug)]
struct ParseJson(Box<dyn Function>);

impl Function for ParseJson {
    fn identifier(&self) -> &'static str {
        self.0.identifier()
    }

    fn usage(&self) -> &'static str {
        self.0.usage()
    }

    fn category(&self) -> &'static str {
        self.0.category()
    }

    fn return_kind(&self) -> u16 {
        self.0.return_kind()
    }

    fn examples(&self) -> &'static [Example] {
        self.0.examples()
    }

    fn parameters(&self) -> &'static [Parameter] {
        self.0.parameters()
    }

    fn compile(
        &self,
        state: &TypeState,
        context: &mut FunctionCompileContext,
        arguments: ArgumentList,
    ) -> Compiled {
        let (value, max_depth, lossy) = (
            arguments.required("value"),
            arguments.optional("max_depth"),
            arguments.optional("lossy"),
        );
        let declared = self.0.compile(state, context, arguments)?;
        Ok(Box::new(Call {
            declared,
            value,
            max_depth,
            lossy,
        }))
    }
}

#[derive(Clone, Debug)]
struct Call {
    /// Knows the type of the result.
    declared: Box<dyn Expression>,
    value: Box<dyn Expression>,
    max_depth: Option<Box<dyn Expression>>,
    /// Whether invalid UTF-8 is replaced; true by default.
    lossy: Option<Box<dyn Expression>>,
}

impl Expression for Call {
    fn resolve(&self, context: &mut Context) -> Resolved {
        let value = self.value.resolve(context)?;
        let bytes = value.try_bytes()?;
        let lossy = match &self.lossy {
            Some(lossy) => lossy.resolve(context)?.try_boolean()?,
            None => true,
        };
        let text = if lossy {
            String::from_utf8_lossy(&bytes)
        } else {
            let text = std::str::from_utf8(&bytes)
                .map_err(|error| format!("unable to parse json: the text is not UTF-8: {error}"))?;
            text.into()
        };
        let text = text.trim_start_matches('\u{feff}');
        let failed = |error: serde_json::Error| format!("unable to parse json: {error}");
        let parsed = match &self.max_depth {
            None => parse(text).map_err(failed)?,
            Some(depth) => {
                let depth = depth.resolve(context)?.try_integer()?;
                if !DEPTHS.contains(&depth) {
                    return Err(format!(
                        "max_depth value should be greater than 0 and less than 128, got {depth}"
                    )
                    .into());
                }
                let document = serde_json::from_str(text).map_err(failed)?;
                parse_layers(document, depth).map_err(failed)?
            }
        };
        Ok(parsed.ok_or(
            "unable to parse json: a number needs more than 64 bits and would lose digits; make it a \
             string, or set numbers: Lossy on the transform",
        )?)
    }

    fn type_info(&self, state: &TypeState) -> TypeInfo {
        self.declared.type_info(state)
    }
}

/// `None` if a number would lose digits.
fn parse(text: &str) -> serde_json::Result<Option<Value>> {
    let parsed = serde_json::from_str(text)?;
    Ok((!any_long(text.as_bytes())).then_some(parsed))
}

/// Parses `depth` layers of objects and arrays; those below stay text.
fn parse_layers(document: &RawValue, depth: i64) -> serde_json::Result<Option<Value>> {
    let text = document.get();
    match (text.as_bytes().first(), depth) {
        (Some(b'{' | b'['), 0) => Ok(Some(Value::from(text))),
        (Some(b'{'), _) => {
            let members: std::collections::HashMap<String, &RawValue> = serde_json::from_str(text)?;
            let mut object = ObjectMap::new();
            for (name, member) in members {
                let Some(value) = parse_layers(member, depth - 1)? else {
                    return Ok(None);
                };
                object.insert(name.into(), value);
            }
            Ok(Some(Value::Object(object)))
        }
        (Some(b'['), _) => {
            let elements: Vec<&RawValue> = serde_json::from_str(text)?;
            let parsed = elements
                .into_iter()
                .map(|element| parse_layers(element, depth - 1));
            Ok(parsed
                .collect::<serde_json::Result<Option<Vec<_>>>>()?
                .map(Value::Array))
        }
        _ => parse(text),
    }
}
