//! Which VRL programs compile. In: sources of programs. Out: a [`Verdict`] for each. Remembers its verdicts;
//! runs no program.
//!
//! A program is text of a user, and compiling it can take all memory, all time, or overflow the stack. So the
//! operator compiles in a process of its own (`process`), which is killed when it exceeds a limit, and never
//! while another group waits for a lock. A program first gets a short time, then a longer one in another
//! queue: programs that compile quickly do not wait behind slow ones. In both, namespaces take turns (`queue`).

#[cfg(feature = "vrl")]
pub mod process;
#[cfg(feature = "vrl")]
mod queue;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
#[cfg(feature = "vrl")]
use std::time::Duration;

#[cfg(feature = "vrl")]
use futures::FutureExt as _;
#[cfg(feature = "vrl")]
use futures::future::{BoxFuture, Shared};
#[cfg(feature = "vrl")]
use queue::FairQueue;

use crate::digest::hash;
use crate::sync::lock;

/// Maximum number of cached verdicts, mostly about 100 bytes each; more than the programs of any cluster we
/// know.
const MAX_RESULTS: usize = 4096;

/// CPU time of the first try. Programs with a hundred statements need 10 to 50 ms.
#[cfg(feature = "vrl")]
const QUICK: Duration = Duration::from_millis(300);
/// Processes that may run at the same time: first tries, and longer ones. Each may use the memory of
/// `Limits::OPERATOR`, and the operator's container has a limit.
#[cfg(feature = "vrl")]
const QUICK_PROCESSES: usize = 1;
#[cfg(feature = "vrl")]
const SLOW_PROCESSES: usize = 1;
/// A process that was killed says less about its program than about the CPU that the operator gets, so the
/// verdict is forgotten after this time, and the program is compiled again.
#[cfg(feature = "vrl")]
const RECONSIDER: Duration = Duration::from_secs(600);
/// A reconcile waits at most this long for a verdict. The compilation continues, and a later reconcile finds
/// its verdict.
#[cfg(feature = "vrl")]
const PATIENCE: Duration = Duration::from_secs(20);

/// What is known of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Valid,
    /// The compiler's message, or the limit that the program exceeds.
    Invalid(String),
    /// Not known yet, and why.
    Unknown(String),
}

/// The verdicts of one operator.
#[derive(Debug)]
pub struct Programs {
    programs: Mutex<HashMap<String, Arc<Program>>>,
    #[cfg(feature = "vrl")]
    processes: Option<Processes>,
    /// Why the last process could not be started, whatever its program.
    #[cfg(feature = "vrl")]
    failure: Mutex<Option<String>>,
    /// Compilations that wait or run, by namespace and digest: a reconcile that asks again waits for the same one.
    #[cfg(feature = "vrl")]
    running: Mutex<HashMap<Key, Shared<BoxFuture<'static, ()>>>>,
}

/// A namespace and the digest of a program.
#[cfg(feature = "vrl")]
type Key = (String, String);

/// What is known of one program.
#[derive(Debug, Default)]
struct Program {
    verdict: OnceLock<Verdict>,
    /// Why the last process of this program ended without a verdict.
    #[cfg(feature = "vrl")]
    failure: Mutex<Option<String>>,
}

#[cfg(feature = "vrl")]
#[derive(Debug)]
struct Processes {
    program: std::path::PathBuf,
    kill_after: Duration,
    quick: FairQueue,
    slow: FairQueue,
}

impl Default for Programs {
    /// Compiles in this process, which is for tests.
    fn default() -> Self {
        Self {
            programs: Mutex::default(),
            #[cfg(feature = "vrl")]
            processes: None,
            #[cfg(feature = "vrl")]
            failure: Mutex::default(),
            #[cfg(feature = "vrl")]
            running: Mutex::default(),
        }
    }
}

impl Programs {
    /// Compiles in processes that run `program`, an executable of this operator.
    #[cfg(feature = "vrl")]
    pub fn isolated(program: std::path::PathBuf) -> Self {
        Self::isolated_within(program, process::KILL_AFTER)
    }

    /// Compiles in processes that run `program` and are killed after `kill_after`.
    #[cfg(feature = "vrl")]
    pub fn isolated_within(program: std::path::PathBuf, kill_after: Duration) -> Self {
        let processes = Processes {
            program,
            kill_after,
            quick: FairQueue::new(QUICK_PROCESSES),
            slow: FairQueue::new(SLOW_PROCESSES),
        };
        Self {
            processes: Some(processes),
            ..Self::default()
        }
    }

    /// The executable of this process, which stays accessible when its file is replaced.
    #[cfg(feature = "vrl")]
    pub fn of_this_program() -> Self {
        let own = std::path::PathBuf::from("/proc/self/exe");
        Self::isolated(if own.exists() {
            own
        } else {
            std::env::current_exe().unwrap_or(own)
        })
    }

    /// Without the compiler nothing is started.
    #[cfg(not(feature = "vrl"))]
    pub fn of_this_program() -> Self {
        Self::default()
    }

    /// What is known of `source`; compiles it only if nothing runs processes. Call [`Programs::prepare`]
    /// first.
    pub fn verdict(&self, source: &str) -> Verdict {
        let program = self.program(source);
        if let Some(verdict) = program.verdict.get() {
            return verdict.clone();
        }
        #[cfg(feature = "vrl")]
        if self.processes.is_none() {
            let verdict = match crds::vrl_program::compile(source) {
                Ok(_) => Verdict::Valid,
                Err(error) => Verdict::Invalid(error.to_string()),
            };
            // Err: another thread was faster.
            drop(program.verdict.set(verdict.clone()));
            return verdict;
        }
        // Without the compiler every program passes; the worker checks its programs when it starts.
        if cfg!(not(feature = "vrl")) {
            return Verdict::Valid;
        }
        #[cfg(feature = "vrl")]
        if let Some(failure) = lock(&self.failure).as_ref().or(lock(&program.failure).as_ref()) {
            return Verdict::Unknown(format!("the operator's compiler does not run: {failure}"));
        }
        Verdict::Unknown("the operator still compiles it, or programs before it".into())
    }

    /// Compiles `sources`, unless their verdicts are known. Waits a limited time; the compilation continues.
    #[cfg(feature = "vrl")]
    pub async fn prepare(self: &Arc<Self>, namespace: &str, sources: Vec<String>) {
        drop(tokio::time::timeout(PATIENCE, self.prepare_all(namespace, sources)).await);
    }

    /// Compiles `sources`, unless their verdicts are known. Programs of other namespaces take turns with them.
    #[cfg(feature = "vrl")]
    pub async fn prepare_all(self: &Arc<Self>, namespace: &str, sources: Vec<String>) {
        if self.processes.is_none() {
            return;
        }
        let unknown = sources
            .into_iter()
            .filter(|source| self.program(source).verdict.get().is_none());
        let running: Vec<_> = unknown.map(|source| self.start(namespace, source)).collect();
        for compilation in running {
            compilation.await;
        }
    }

    /// A compilation of `source`, which continues when the caller stops waiting: the one that runs, or a new one.
    #[cfg(feature = "vrl")]
    fn start(self: &Arc<Self>, namespace: &str, source: String) -> Shared<BoxFuture<'static, ()>> {
        let key = (namespace.to_string(), hash(source.as_bytes()));
        let mut running = lock(&self.running);
        if let Some(compilation) = running.get(&key) {
            return compilation.clone();
        }
        let ends = Ends(self.clone(), key.clone());
        // Spawned when somebody waits for it, which is never while the lock is held.
        let compilation = async move {
            let work = tokio::spawn(async move {
                let Ends(programs, (namespace, _)) = &ends;
                programs.compile(namespace, &source).await;
            });
            // An error is a panic: the verdict stays unknown.
            drop(work.await);
        };
        let compilation = compilation.boxed().shared();
        running.insert(key, compilation.clone());
        compilation
    }

    #[cfg(not(feature = "vrl"))]
    pub async fn prepare(self: &Arc<Self>, _: &str, _: Vec<String>) {}

    #[cfg(not(feature = "vrl"))]
    pub async fn prepare_all(self: &Arc<Self>, _: &str, _: Vec<String>) {}

    #[cfg(feature = "vrl")]
    async fn compile(self: &Arc<Self>, namespace: &str, source: &str) {
        let Some(processes) = &self.processes else { return };
        let program = self.program(source);
        let mut verdict = processes.compile(&program, namespace, source).await;
        let mut killed = false;
        if let Err(process::Error::Timeout(after)) = verdict {
            killed = true;
            verdict = Ok(Verdict::Invalid(format!(
                "the VRL program is too slow to compile: the compiler was stopped after {} s, twice; simplify it, split it into several transforms, or raise the CPU limit of the operator",
                after.as_secs()
            )));
        }
        let failure = match verdict {
            // Err: the same program of another namespace was faster.
            Ok(verdict) => program.verdict.set(verdict).err().and(None),
            Err(error) => Some(error),
        };
        if let Some(error) = &failure {
            tracing::warn!(%error, "cannot compile a VRL program; it is tried again");
        }
        let (all, own) = match failure {
            Some(error @ process::Error::Process(_)) => (Some(error.to_string()), None),
            other => (None, other.map(|error| error.to_string())),
        };
        *lock(&self.failure) = all;
        *lock(&program.failure) = own;
        if killed {
            let (programs, key) = (Arc::downgrade(self), hash(source.as_bytes()));
            tokio::spawn(async move {
                tokio::time::sleep(RECONSIDER).await;
                if let Some(programs) = programs.upgrade() {
                    lock(&programs.programs).remove(&key);
                }
            });
        }
    }

    fn program(&self, source: &str) -> Arc<Program> {
        let key = hash(source.as_bytes());
        let mut programs = lock(&self.programs);
        if programs.len() >= MAX_RESULTS && !programs.contains_key(&key) {
            programs.clear();
        }
        programs.entry(key).or_default().clone()
    }
}

/// A compilation; when the value is dropped, it has ended.
#[cfg(feature = "vrl")]
struct Ends(Arc<Programs>, Key);

#[cfg(feature = "vrl")]
impl Drop for Ends {
    fn drop(&mut self) {
        lock(&self.0.running).remove(&self.1);
    }
}

#[cfg(feature = "vrl")]
impl Processes {
    /// Err: nothing is known, and another try may succeed.
    async fn compile(
        &self,
        program: &Program,
        namespace: &str,
        source: &str,
    ) -> Result<Verdict, process::Error> {
        let limits = crds::vrl_program::Limits::OPERATOR;
        let short = crds::vrl_program::Limits { cpu: QUICK, ..limits };
        let compile = |limits| process::compile(&self.program, source, limits, self.kill_after);
        let outcome = {
            let _turn = self.quick.turn(namespace).await;
            // Another namespace with the same program may have been first.
            if let Some(known) = program.verdict.get() {
                return Ok(known.clone());
            }
            compile(short).await
        };
        let killed = |outcome: &Result<_, _>| matches!(outcome, Err(process::Error::Timeout(_)));
        let killed_before = killed(&outcome);
        match outcome {
            Ok(process::Outcome::Valid) => return Ok(Verdict::Valid),
            Ok(process::Outcome::Invalid(message)) => return Ok(Verdict::Invalid(message)),
            Ok(process::Outcome::TooSlow(_)) | Err(process::Error::Timeout(_)) => {}
            Err(error) => return Err(error),
        }
        let _turn = self.slow.turn(namespace).await;
        if let Some(known) = program.verdict.get() {
            return Ok(known.clone());
        }
        let mut outcome = compile(limits).await;
        // The machine may be busy, as when many programs start: only a second timeout counts.
        if killed(&outcome) && !killed_before {
            outcome = compile(limits).await;
        }
        Ok(match outcome? {
            process::Outcome::Valid => Verdict::Valid,
            process::Outcome::Invalid(message) | process::Outcome::TooSlow(message) => {
                Verdict::Invalid(message)
            }
        })
    }
}

#[cfg(all(test, feature = "vrl"))]
mod tests;
