//! How deep a program nests. In: its source. Out: nothing, or the line where it is too deep. The compiler, and
//! later the program, use the stack for every level, and an overflow aborts the process.

use vrl::compiler::prelude::Span;
use vrl::parser::ast::{
    Assignment, Block, Container, Expr, FunctionCall, Node, Predicate, QueryTarget, RootExpr, Unary,
};

use super::{InvalidProgram, MAX_LEVELS};

/// Open brackets before the source is not even parsed: the lexer's time grows with the square of their
/// number. Higher than [`MAX_LEVELS`], because brackets in strings and comments count here too.
const MAX_OPEN_BRACKETS: usize = 4 * MAX_LEVELS;

/// Ok also if the source does not parse: the compiler reports that.
pub(super) fn check(source: &str) -> Result<(), InvalidProgram> {
    brackets(source)?;
    let Ok(program) = vrl::parser::parse(source) else {
        return Ok(());
    };
    program
        .into_iter()
        .try_for_each(|root| match root.into_inner() {
            RootExpr::Expr(root) => expression(root, 1),
            RootExpr::Error(_) => Ok(()),
        })
        .map_err(|Deep(span)| {
            let before = source.as_bytes().iter().take(span.start());
            InvalidProgram::TooDeep {
                line: before.filter(|byte| **byte == b'\n').count() + 1,
            }
        })
}

fn brackets(source: &str) -> Result<(), InvalidProgram> {
    let (mut open, mut line) = (0_usize, 1);
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            b'\n' => line += 1,
            _ => {}
        }
        if open > MAX_OPEN_BRACKETS {
            return Err(InvalidProgram::TooDeep { line });
        }
    }
    Ok(())
}

/// The first expression that is too deep.
struct Deep(Span);

/// Takes the expression, because the fields of some nodes are accessible only so.
fn expression(node: Node<Expr>, level: usize) -> Result<(), Deep> {
    let (span, node) = node.take();
    if level > MAX_LEVELS {
        return Err(Deep(span));
    }
    let below = level + 1;
    match node {
        Expr::Literal(_) | Expr::Variable(_) | Expr::Break(_) => Ok(()),
        Expr::Container(it) => container(it.into_inner(), below),
        Expr::IfStatement(it) => {
            let it = it.into_inner();
            match it.predicate.into_inner() {
                Predicate::One(one) => expression(*one, below)?,
                Predicate::Many(many) => all(many, below)?,
            }
            block(it.if_node, below)?;
            it.else_node.map_or(Ok(()), |node| block(node, below))
        }
        Expr::Op(it) => {
            let it = it.into_inner();
            expression(*it.0, below)?;
            expression(*it.2, below)
        }
        Expr::Assignment(it) => match it.into_inner() {
            Assignment::Single { expr, .. } | Assignment::Infallible { expr, .. } => expression(*expr, below),
        },
        Expr::Query(it) => match it.into_inner().target.into_inner() {
            QueryTarget::Internal(_) | QueryTarget::External(_) => Ok(()),
            QueryTarget::FunctionCall(it) => call(it, below),
            QueryTarget::Container(it) => container(it, below),
        },
        Expr::FunctionCall(it) => call(it.into_inner(), below),
        Expr::Unary(it) => {
            let Unary::Not(it) = it.into_inner();
            expression(*it.into_inner().take().1, below)
        }
        Expr::Abort(it) => (it.into_inner().message).map_or(Ok(()), |message| expression(*message, below)),
        Expr::Return(it) => expression(*it.into_inner().expr, below),
    }
}

fn container(node: Container, level: usize) -> Result<(), Deep> {
    match node {
        Container::Group(it) => expression(it.into_inner().into_inner(), level),
        Container::Block(it) => block(it, level),
        Container::Array(it) => all(it.into_inner(), level),
        Container::Object(it) => all(it.into_inner().into_iter().map(|(_, value)| value), level),
    }
}

fn call(call: FunctionCall, level: usize) -> Result<(), Deep> {
    all(call.arguments.into_iter().map(|it| it.into_inner().expr), level)?;
    call.closure
        .map_or(Ok(()), |closure| block(closure.into_inner().block, level))
}

fn block(node: Node<Block>, level: usize) -> Result<(), Deep> {
    all(node.into_inner(), level)
}

fn all(nodes: impl IntoIterator<Item = Node<Expr>>, level: usize) -> Result<(), Deep> {
    nodes.into_iter().try_for_each(|node| expression(node, level))
}
