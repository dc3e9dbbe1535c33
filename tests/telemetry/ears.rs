//! What listens: a recorder of metrics and a subscriber of spans and events that keep all that they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, SharedString, Unit};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};

/// Keeps every metric. Clones share what they keep.
#[derive(Clone, Default)]
pub(crate) struct Ear {
    counters: Arc<Mutex<BTreeMap<Series, Arc<AtomicU64>>>>,
    gauges: Arc<Mutex<BTreeMap<Series, Arc<AtomicU64>>>>,
    histograms: Arc<Mutex<BTreeMap<Series, Arc<Values>>>>,
}

/// A metric's name and labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
}

#[derive(Default)]
struct Values(Mutex<Vec<f64>>);

impl HistogramFn for Values {
    fn record(&self, value: f64) {
        self.0.lock().unwrap().push(value);
    }
}

impl Series {
    fn of(key: &Key) -> Self {
        let labels = key.labels().map(|label| (label.key().to_owned(), label.value().to_owned()));
        Self { name: key.name().to_owned(), labels: labels.collect() }
    }

    /// Whether it has this name and these labels, and perhaps others.
    fn is(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.name == name
            && labels.iter().all(|(key, value)| self.labels.get(*key).is_some_and(|found| found == value))
    }
}

impl Ear {
    /// The sum of all counters that match; zero where there is none.
    pub(crate) fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let counters = self.counters.lock().unwrap();
        let matching = counters.iter().filter(|(series, _)| series.is(name, labels));
        matching.map(|(_, value)| value.load(Ordering::SeqCst)).sum()
    }

    /// The one gauge that matches.
    pub(crate) fn gauge(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let gauges = self.gauges.lock().unwrap().clone();
        let matching = gauges.iter().filter(|(series, _)| series.is(name, labels));
        let found: Vec<f64> = matching.map(|(_, bits)| f64::from_bits(bits.load(Ordering::SeqCst))).collect();
        assert_eq!(found.len(), 1, "{name} {labels:?}");
        found[0]
    }

    pub(crate) fn observed(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let histograms = self.histograms.lock().unwrap();
        let matching = histograms.iter().filter(|(series, _)| series.is(name, labels));
        matching.flat_map(|(_, values)| values.0.lock().unwrap().clone()).collect()
    }

    pub(crate) fn series(&self) -> BTreeSet<Series> {
        let counters = self.counters.lock().unwrap().keys().cloned().collect::<Vec<_>>();
        let gauges = self.gauges.lock().unwrap().keys().cloned().collect::<Vec<_>>();
        let histograms = self.histograms.lock().unwrap().keys().cloned().collect::<Vec<_>>();
        counters.into_iter().chain(gauges).chain(histograms).collect()
    }
}

impl metrics::Recorder for Ear {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let mut counters = self.counters.lock().unwrap();
        Counter::from_arc(counters.entry(Series::of(key)).or_default().clone())
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let mut gauges = self.gauges.lock().unwrap();
        Gauge::from_arc(gauges.entry(Series::of(key)).or_default().clone())
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let mut histograms = self.histograms.lock().unwrap();
        Histogram::from_arc(histograms.entry(Series::of(key)).or_default().clone())
    }
}

/// Keeps every span and event. Clones share what they keep.
#[derive(Clone, Default)]
pub(crate) struct Eye {
    told: Arc<Mutex<Vec<Told>>>,
    entered: Arc<AtomicU64>,
}

/// A span or an event.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) name: &'static str,
    pub(crate) target: String,
    pub(crate) level: Level,
    /// All that its place in the code could tell.
    pub(crate) fields: BTreeSet<&'static str>,
    pub(crate) values: BTreeMap<&'static str, String>,
}

impl Eye {
    pub(crate) fn all(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }

    pub(crate) fn named(&self, name: &str) -> Vec<Told> {
        self.all().into_iter().filter(|told| told.name == name).collect()
    }

    /// How often a span was entered.
    pub(crate) fn entered(&self) -> u64 {
        self.entered.load(Ordering::SeqCst)
    }

    fn keep(&self, metadata: &tracing::Metadata<'static>, record: impl FnOnce(&mut Fields)) -> u64 {
        let mut told = Told {
            name: metadata.name(),
            target: metadata.target().to_owned(),
            level: *metadata.level(),
            fields: metadata.fields().iter().map(|field| field.name()).collect(),
            values: BTreeMap::new(),
        };
        record(&mut Fields(&mut told.values));
        let mut all = self.told.lock().unwrap();
        all.push(told);
        all.len() as u64
    }
}

pub(crate) struct Fields<'a>(&'a mut BTreeMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for Eye {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == strongroom::telemetry::TARGET
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        Id::from_u64(self.keep(span.metadata(), |values| span.record(values)))
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut all = self.told.lock().unwrap();
        let at = usize::try_from(span.into_u64()).unwrap() - 1;
        values.record(&mut Fields(&mut all[at].values));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.keep(event.metadata(), |values| event.record(values));
    }

    fn enter(&self, _: &Id) {
        self.entered.fetch_add(1, Ordering::SeqCst);
    }

    fn exit(&self, _: &Id) {}
}
