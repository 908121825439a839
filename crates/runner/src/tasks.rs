//! The tasks of a pipeline, started from its end to its head, so that nothing flows before
//! everything stands.

use flowctl_bridge::{Caller, Gate, Identity, Metrics as BridgeMetrics, Role, Settings, Window, WindowLimits};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::blueprint::{Blueprint, ConsumerSettings, ProcessorSettings};
use crate::chain::{self, Delivery};
use crate::consume::{JsonLinesFile, LineSink, Stdout, write_lines};
use crate::error::RunError;
use crate::handle::Message;
use crate::head;
use crate::ledger_reader::LedgerReader;
use crate::metrics::{RunnerMetrics, StepMetrics};
use crate::report::{Kind, Reports};
use crate::run::Environment;
use crate::source::Reading;
use crate::tracker::Tracker;

/// Tasks; the one that reads tells how reading ended.
pub(crate) type Tasks = JoinSet<Result<Option<Reading>, RunError>>;

/// A pipeline whose tasks run.
pub(crate) struct Pipeline<'a> {
    pub(crate) blueprint: &'a Blueprint,
    pub(crate) environment: &'a Environment,
    pub(crate) metrics: RunnerMetrics,
    pub(crate) bridge: BridgeMetrics,
    pub(crate) tracker: Tracker,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: Tasks,
    /// Metrics of the processors, which know how many messages were skipped.
    pub(crate) filters: Vec<StepMetrics>,
    pub(crate) reports: Reports,
}

// === impl Pipeline ===

impl Pipeline<'_> {
    /// Starts every task of the pipeline, from its end to its head.
    pub(crate) fn start(&mut self, start: Option<u32>, limits: WindowLimits) -> Result<(), RunError> {
        let mut consumers = Vec::new();
        for step in &self.blueprint.consumers {
            let (sender, input) = unbounded_channel();
            consumers.push(sender);
            self.start_consumer(&step.name, &step.settings, input)?;
        }
        let source = self.metrics.step(&self.blueprint.source.name);
        self.reports
            .add(Kind::Source, &self.blueprint.source.name, source.clone(), None);
        let mut network = self.blueprint.source.settings.network.clone();
        let (head_out, mut output) = unbounded_channel::<Message>();
        for step in &self.blueprint.processors {
            let settings = match &step.settings {
                ProcessorSettings::LedgerReader(reader) => {
                    // It works inside the head: only there is the ledger still a ledger.
                    network = reader.network.clone().or(network);
                    self.reports.add(Kind::Reader, &step.name, source.clone(), None);
                    continue;
                }
                ProcessorSettings::External(settings) => settings,
            };
            let metrics = self.metrics.step(&step.name);
            self.filters.push(metrics.clone());
            let caller = self.caller(&step.name, Role::Processor, settings)?;
            let gate = Some(caller.gate());
            self.reports.add(Kind::Processor, &step.name, metrics.clone(), gate);
            let (sender, next) = unbounded_channel();
            let input = std::mem::replace(&mut output, next);
            self.tasks.spawn(async move {
                chain::processor(caller, input, sender, metrics).await?;
                Ok(None)
            });
        }
        self.tasks.spawn(async move {
            chain::fan_out(output, consumers).await;
            Ok(None)
        });
        let reader = head::Reader {
            folder: self.blueprint.source.settings.clone(),
            start,
            ledgers: LedgerReader {
                pipeline: self.blueprint.key.clone(),
                network,
            },
            stop: self.stop.clone(),
            metrics: source,
        };
        self.start_head(reader, head_out, limits);
        Ok(())
    }

    fn start_head(&mut self, reader: head::Reader, out: UnboundedSender<Message>, limits: WindowLimits) {
        let (sender, drafts) = head::drafts();
        let window = Window::new(limits, self.metrics.window.clone());
        let tracker = self.tracker.clone();
        let stop = self.stop.clone();
        let metrics = reader.metrics.clone();
        self.tasks.spawn(async move {
            head::enter(drafts, out, window, tracker, stop, metrics).await;
            Ok(None)
        });
        let step = self.blueprint.source.name.clone();
        let runtime = tokio::runtime::Handle::current();
        self.tasks.spawn_blocking(move || {
            let read = head::read(&reader, runtime, &sender);
            read.map(Some).map_err(|source| RunError::Source {
                step,
                source: Box::new(source),
            })
        });
    }

    fn start_consumer(
        &mut self,
        name: &str,
        settings: &ConsumerSettings,
        input: UnboundedReceiver<Delivery>,
    ) -> Result<(), RunError> {
        let metrics = self.metrics.step(name);
        match settings {
            ConsumerSettings::External(settings) => {
                let caller = self.caller(name, Role::Consumer, settings)?;
                let gate = Some(caller.gate());
                self.reports.add(Kind::Consumer, name, metrics.clone(), gate);
                self.tasks.spawn(async move {
                    chain::consumer(caller, input, metrics).await?;
                    Ok(None)
                });
            }
            ConsumerSettings::Stdout => {
                self.reports.add(Kind::Stream, name, metrics.clone(), None);
                self.write(name, Stdout, input, metrics);
            }
            ConsumerSettings::JsonLines { path } => {
                self.reports.add(Kind::File, name, metrics.clone(), None);
                let file = JsonLinesFile::open(path).map_err(|source| RunError::Write {
                    step: name.to_owned(),
                    place: path.display().to_string(),
                    source,
                })?;
                self.write(name, file, input, metrics);
            }
        }
        Ok(())
    }

    fn write(&mut self, name: &str, sink: impl LineSink, input: UnboundedReceiver<Delivery>, metrics: StepMetrics) {
        let name = name.to_owned();
        self.tasks.spawn_blocking(move || {
            write_lines(sink, &name, input, &metrics)?;
            Ok(None)
        });
    }

    /// Starts the caller of an external step, and a readiness check that ends when its peer has
    /// been healthy once.
    fn caller(&self, step: &str, role: Role, settings: &Settings) -> Result<Caller, RunError> {
        let identity = Identity {
            step: step.to_owned(),
            role,
        };
        let caller = Caller::start(identity, settings.clone(), &self.bridge).map_err(|source| RunError::Tls {
            step: step.to_owned(),
            source: Box::new(source),
        })?;
        let waiting = format!("waiting for {} to be healthy", settings.endpoint);
        let check = self.environment.readiness.check(format!("step {step}"), waiting);
        let mut gate = caller.gate();
        tokio::spawn(async move {
            if gate.wait_for(|gate| *gate == Gate::Open).await.is_ok() {
                check.ready();
            }
        });
        Ok(caller)
    }
}
