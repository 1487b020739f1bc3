//! The histogram of gaps between tokens (ITL). A turn brings its own, already counted: they are added bucket by bucket, which
//! [`prometheus::Histogram`] has no way to do.

use super::family::registered;
use flashlane_engine::{Gaps, Tier};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Opts, Registry, core::Describer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Clone)]
pub(super) struct GapFamily(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    desc: Desc,
    tiers: [TierGaps; 2],
}

#[derive(Debug, Default)]
struct TierGaps {
    counts: [AtomicU64; Gaps::BUCKETS],
    sum_ns: AtomicU64,
}

impl GapFamily {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help = "Time between two reads of an engine that each brought tokens of one turn";
        let options = Opts::new("flashlane_itl_seconds", help).variable_label("tier");
        registered(registry, Self(Arc::new(Inner { desc: options.describe()?, tiers: Default::default() })))
    }

    pub(super) fn add(&self, tier: Tier, gaps: &Gaps) {
        let [latency, throughput] = &self.0.tiers;
        let of_tier = match tier {
            Tier::Latency => latency,
            Tier::Throughput => throughput,
        };
        for (count, more) in of_tier.counts.iter().zip(gaps.counts()).filter(|(_, more)| *more > 0) {
            count.fetch_add(u64::from(more), Ordering::Relaxed);
        }
        of_tier.sum_ns.fetch_add(gaps.sum_ns(), Ordering::Relaxed);
    }
}

impl Collector for GapFamily {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut family = MetricFamily::default();
        family.set_name(self.0.desc.fq_name.clone());
        family.set_help(self.0.desc.help.clone());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(Tier::ALL.into_iter().zip(&self.0.tiers).map(|(tier, gaps)| gaps.metric(tier)).collect());
        vec![family]
    }
}

impl TierGaps {
    fn metric(&self, tier: Tier) -> Metric {
        let mut sum = 0;
        let counts = self.counts.each_ref().map(|count| {
            sum += count.load(Ordering::Relaxed);
            sum
        });
        let buckets = Gaps::bounds_ns().zip(counts).map(|(bound_ns, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound_ns as f64 / 1e9);
            bucket.set_cumulative_count(count);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(sum);
        histogram.set_sample_sum(self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9);
        let mut label = LabelPair::default();
        label.set_name("tier".to_owned());
        label.set_value(tier.name().to_owned());
        let mut metric = Metric::from_label(vec![label]);
        metric.set_histogram(histogram);
        metric
    }
}
