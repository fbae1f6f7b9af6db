//! What a program computes from what, read from its syntax tree. In: the source of a program that compiles.
//! Out: for each assignment to `.` or `%` the paths whose numbers may be computed with, in contrast to moved
//! or copied. Variables count with everything that is assigned to them anywhere in the program, and what is
//! unknown counts as computing. Conditions do not count: they choose values and do not make them.

use std::collections::{HashMap, HashSet};

use ::vrl::{
    parser::{
        self,
        ast::{
            Assignment, AssignmentTarget, Container, Expr, FunctionCall, Literal, Opcode, Predicate, Query,
            QueryTarget, RootExpr, Unary,
        },
        template_string::StringSegment,
    },
    path::{OwnedTargetPath, OwnedValuePath, PathPrefix},
};

/// Functions that return values of their arguments, or values around them, as they are.
const MOVING: [&str; 26] = [
    "append",
    "array",
    "chunks",
    "compact",
    "del",
    "filter",
    "flatten",
    "float",
    "get",
    "int",
    "map_keys",
    "map_values",
    "merge",
    "object",
    "object_from_array",
    "pop",
    "push",
    "remove",
    "set",
    "slice",
    "to_float",
    "unflatten",
    "unique",
    "unnest",
    "values",
    "zip",
];

/// Functions whose result has no digits of their arguments.
const WITHOUT_DIGITS: [&str; 15] = [
    "assert",
    "assert_eq",
    "contains",
    "contains_all",
    "ends_with",
    "exists",
    "find",
    "for_each",
    "includes",
    "keys",
    "length",
    "log",
    "match",
    "starts_with",
    "strlen",
];

/// The assignments of one program.
#[derive(Debug, Default)]
pub(super) struct Flows {
    computed: HashMap<OwnedTargetPath, HashSet<OwnedTargetPath>>,
    /// True if the program calls `del` for a path of `%`.
    pub deletes_metadata: bool,
}

impl Flows {
    /// Reads a program. A program that does not parse has no flows; it does not compile either.
    pub fn of(source: &str) -> Self {
        let mut walker = Walker::default();
        for root in parser::parse(source).into_iter().flatten() {
            if let RootExpr::Expr(expr) = root.into_inner() {
                walker.value(&expr);
            }
        }
        let mut flows = Self {
            deletes_metadata: walker.deletes_metadata,
            ..Self::default()
        };
        for (target, sources) in &walker.targets {
            let paths = flows.computed.entry(target.clone()).or_default();
            walker.collect(sources, false, &mut HashSet::new(), paths);
        }
        flows
    }

    /// True if an assignment to `target` may compute with a number at `source`.
    pub fn computes(&self, target: &OwnedTargetPath, source: &OwnedTargetPath) -> bool {
        (self.computed.get(target)).is_some_and(|sources| sources.contains(source))
    }
}

/// Where the numbers of a value come from.
#[derive(Clone, Debug, Default)]
struct Sources {
    moved: HashSet<Source>,
    computed: HashSet<Source>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Source {
    Path(OwnedTargetPath),
    Variable(String),
}

impl Sources {
    fn moved(source: Source) -> Self {
        Self {
            moved: HashSet::from([source]),
            ..Self::default()
        }
    }

    fn and(mut self, other: Self) -> Self {
        self.moved.extend(other.moved);
        self.computed.extend(other.computed);
        self
    }

    fn computed(mut self) -> Self {
        self.computed.extend(self.moved.drain());
        self
    }
}

#[derive(Default)]
struct Walker {
    targets: Vec<(OwnedTargetPath, Sources)>,
    variables: HashMap<String, Sources>,
    deletes_metadata: bool,
}

impl Walker {
    /// Where the value of an expression comes from. Notes the assignments inside.
    fn value(&mut self, expr: &Expr) -> Sources {
        match expr {
            Expr::Literal(literal) => template(literal.inner()),
            Expr::Container(container) => self.container(container.inner()),
            Expr::IfStatement(node) => {
                match node.predicate.inner() {
                    Predicate::One(expr) => drop(self.value(expr)),
                    Predicate::Many(exprs) => drop(self.last(exprs.iter().map(|node| node.inner()))),
                }
                let then = self.last(node.if_node.0.iter().map(|node| node.inner()));
                match &node.else_node {
                    Some(block) => then.and(self.last(block.0.iter().map(|node| node.inner()))),
                    None => then,
                }
            }
            Expr::Op(op) => {
                let both = self.value(&op.0).and(self.value(&op.2));
                match op.1.inner() {
                    Opcode::Or | Opcode::Err | Opcode::Merge => both,
                    Opcode::And
                    | Opcode::Eq
                    | Opcode::Ne
                    | Opcode::Ge
                    | Opcode::Gt
                    | Opcode::Le
                    | Opcode::Lt => Sources::default(),
                    Opcode::Mul | Opcode::Div | Opcode::Add | Opcode::Sub => both.computed(),
                }
            }
            Expr::Assignment(assignment) => self.assignment(assignment.inner()),
            Expr::Query(query) => self.query(query.inner()),
            Expr::FunctionCall(call) => self.call(call.inner()),
            Expr::Variable(name) => Sources::moved(Source::Variable(name.inner().to_string())),
            Expr::Unary(unary) => {
                let Unary::Not(not) = unary.inner();
                self.value(&not.inner().clone().take().1);
                Sources::default()
            }
            Expr::Abort(abort) => {
                if let Some(message) = &abort.inner().message {
                    self.value(message);
                }
                Sources::default()
            }
            Expr::Return(node) => {
                self.value(&node.inner().expr);
                Sources::default()
            }
            Expr::Break(_) => Sources::default(),
        }
    }

    fn last<'e>(&mut self, exprs: impl Iterator<Item = &'e Expr>) -> Sources {
        exprs.fold(Sources::default(), |_, expr| self.value(expr))
    }

    fn container(&mut self, container: &Container) -> Sources {
        match container {
            Container::Group(group) => self.value(&group.inner().clone().into_inner()),
            Container::Block(block) => self.last(block.inner().0.iter().map(|node| node.inner())),
            Container::Array(array) => (array.inner().clone().into_iter())
                .fold(Sources::default(), |sources, element| {
                    sources.and(self.value(&element))
                }),
            Container::Object(object) => (object.inner().clone().into_iter())
                .fold(Sources::default(), |sources, (_, member)| {
                    sources.and(self.value(&member))
                }),
        }
    }

    fn assignment(&mut self, assignment: &Assignment) -> Sources {
        match assignment {
            Assignment::Single { target, expr, .. } => {
                let sources = self.value(expr);
                self.assign(target.inner(), &sources);
                sources
            }
            Assignment::Infallible { ok, err, expr, .. } => {
                let sources = self.value(expr);
                self.assign(ok.inner(), &sources);
                self.assign(err.inner(), &sources.clone().computed());
                sources
            }
        }
    }

    fn assign(&mut self, target: &AssignmentTarget, sources: &Sources) {
        let root = OwnedValuePath::root;
        match target {
            AssignmentTarget::Noop => {}
            AssignmentTarget::Internal(name, _) => self.variable(name, sources),
            AssignmentTarget::External(path) => {
                let path = (path.clone()).unwrap_or_else(|| OwnedTargetPath::event(root()));
                self.targets.push((path, sources.clone()));
            }
            AssignmentTarget::Query(query) => match query.target.inner() {
                QueryTarget::Internal(name) => self.variable(name, sources),
                QueryTarget::External(prefix) => {
                    self.targets.push((target_path(*prefix, query), sources.clone()))
                }
                // The compiler refuses to assign to these.
                QueryTarget::FunctionCall(_) | QueryTarget::Container(_) => {}
            },
        }
    }

    fn variable(&mut self, name: &str, sources: &Sources) {
        let all = self.variables.entry(name.to_owned()).or_default();
        *all = std::mem::take(all).and(sources.clone());
    }

    fn query(&mut self, query: &Query) -> Sources {
        match query.target.inner() {
            QueryTarget::Internal(name) => Sources::moved(Source::Variable(name.to_string())),
            QueryTarget::External(prefix) => Sources::moved(Source::Path(target_path(*prefix, query))),
            QueryTarget::FunctionCall(call) => self.call(call),
            QueryTarget::Container(container) => self.container(container),
        }
    }

    fn call(&mut self, call: &FunctionCall) -> Sources {
        let name = &**call.ident.inner();
        let mut sources = Sources::default();
        for argument in &call.arguments {
            let argument = argument.inner().expr.inner();
            if name == "del"
                && let Expr::Query(query) = argument
                && let QueryTarget::External(PathPrefix::Metadata) = query.inner().target.inner()
            {
                self.deletes_metadata = true;
            }
            sources = sources.and(self.value(argument));
        }
        if let Some(closure) = &call.closure {
            for variable in &closure.inner().variables {
                self.variable(variable.inner(), &sources);
            }
            let body = self.last(closure.inner().block.inner().0.iter().map(|node| node.inner()));
            sources = sources.and(body);
        }
        if WITHOUT_DIGITS.contains(&name) || name.starts_with("is_") {
            Sources::default()
        } else if MOVING.contains(&name) {
            sources
        } else {
            sources.computed()
        }
    }

    /// Adds the paths that are computed with in a value from `sources`; all its paths if `all` is true.
    fn collect(
        &self,
        sources: &Sources,
        all: bool,
        seen: &mut HashSet<(String, bool)>,
        paths: &mut HashSet<OwnedTargetPath>,
    ) {
        let moved = sources.moved.iter().map(|source| (source, all));
        let computed = sources.computed.iter().map(|source| (source, true));
        for (source, all) in moved.chain(computed) {
            match source {
                Source::Path(path) if all => drop(paths.insert(path.clone())),
                Source::Path(_) => {}
                Source::Variable(name) => {
                    if seen.insert((name.clone(), all))
                        && let Some(sources) = self.variables.get(name)
                    {
                        self.collect(sources, all, seen, paths);
                    }
                }
            }
        }
    }
}

fn target_path(prefix: PathPrefix, query: &Query) -> OwnedTargetPath {
    OwnedTargetPath {
        prefix,
        path: query.path.inner().clone(),
    }
}

/// The variables in the text of a string.
fn template(literal: &Literal) -> Sources {
    let Literal::String(template) = literal else {
        return Sources::default();
    };
    let names = template.0.iter().filter_map(|segment| match segment {
        StringSegment::Template(name, _) => Some(Source::Variable(name.clone())),
        StringSegment::Literal(..) => None,
    });
    Sources {
        computed: names.collect(),
        ..Sources::default()
    }
}
