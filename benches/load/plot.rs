//! The curves of a run, as SVG.

use std::path::Path;

use plotters::{
    chart::ChartBuilder,
    prelude::{Circle, IntoDrawingArea, IntoLogRange, Palette, Palette99, PathElement, SVGBackend},
    series::LineSeries,
    style::{BLACK, Color, WHITE},
};

use crate::{
    Outcome,
    report::{Report, number},
};

const SIZE: (u32, u32) = (900, 560);

/// One plot: a scenario's figure over another one, a line for each server.
struct Plot<'a> {
    file: &'static str,
    title: &'static str,
    across: &'static str,
    up: &'static str,
    logarithmic: bool,
    lines: Vec<(String, Vec<(f64, f64)>)>,
    folder: &'a Path,
}

/// Draws what this run has points for.
///
/// # Errors
/// The file system's.
pub fn draw(report: &Report, folder: &Path) -> Outcome<()> {
    let fan_out = |kind: &str| {
        let kind = kind.to_owned();
        lines(
            report,
            "fan-out",
            move |row| {
                let (watchers, rest) = row.case.split_once(" watchers, ")?;
                (rest == kind).then(|| watchers.parse().ok()).flatten()
            },
            "CPU µs/frame",
        )
    };
    let figure = |name: &'static str| {
        move |row: &crate::report::Row| row.figures.iter().find(|(figure, _)| *figure == name).map(|(_, value)| *value)
    };
    let own = |row: &crate::report::Row| row.case.contains("own").then(|| figure("watchers")(row)).flatten();
    let plots = [
        Plot {
            file: "fan-out-each.svg",
            title: "Fan-out, one event at a time",
            across: "watchers",
            up: "server CPU per frame, µs",
            logarithmic: true,
            lines: fan_out("each"),
            folder,
        },
        Plot {
            file: "fan-out-queued.svg",
            title: "Fan-out, 32 events under way",
            across: "watchers",
            up: "server CPU per frame, µs",
            logarithmic: true,
            lines: fan_out("queued"),
            folder,
        },
        Plot {
            file: "memory-connections.svg",
            title: "Memory against idle connections",
            across: "connections",
            up: "resident, MiB",
            logarithmic: false,
            lines: lines(report, "idle", own, "process MiB"),
            folder,
        },
        Plot {
            file: "memory-tasks.svg",
            title: "Memory against retained tasks",
            across: "tasks",
            up: "resident, MiB",
            logarithmic: false,
            lines: lines(report, "tasks", figure("tasks"), "process MiB"),
            folder,
        },
    ];
    for plot in plots.iter().filter(|plot| plot.lines.iter().any(|(_, points)| points.len() > 1)) {
        plot.draw()?;
    }
    Ok(())
}

/// A line of each server of a scenario.
fn lines(
    report: &Report,
    scenario: &str,
    across: impl Fn(&crate::report::Row) -> Option<f64>,
    up: &str,
) -> Vec<(String, Vec<(f64, f64)>)> {
    let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for row in report.rows.iter().filter(|row| row.scenario == scenario) {
        let value = row.figures.iter().find(|(figure, _)| *figure == up).map(|(_, value)| *value);
        let (Some(x), Some(y)) = (across(row), value) else { continue };
        match lines.iter_mut().find(|(server, _)| *server == row.server) {
            Some((_, points)) => points.push((x, y)),
            None => lines.push((row.server.clone(), vec![(x, y)])),
        }
    }
    lines
}

impl Plot<'_> {
    fn draw(&self) -> Outcome<()> {
        let path = self.folder.join(self.file);
        let root = SVGBackend::new(&path, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let all = || self.lines.iter().flat_map(|(_, points)| points.iter().copied());
        let x_max = all().map(|(x, _)| x).fold(0.0, f64::max);
        let y_max = all().map(|(_, y)| y).fold(0.0, f64::max);
        let mut builder = ChartBuilder::on(&root);
        builder.caption(self.title, ("sans-serif", 22)).margin(16).x_label_area_size(44).y_label_area_size(70);
        if self.logarithmic {
            let x_min = all().map(|(x, _)| x).fold(f64::MAX, f64::min);
            let y_min = all().map(|(_, y)| y).fold(f64::MAX, f64::min);
            let across = (x_min / 1.2..x_max * 1.2).log_scale();
            let mut chart = builder.build_cartesian_2d(across, (y_min / 2.0..y_max * 2.0).log_scale())?;
            self.lines(&mut chart)?;
        } else {
            let mut chart = builder.build_cartesian_2d(0.0..x_max * 1.05, 0.0..y_max * 1.1)?;
            self.lines(&mut chart)?;
        }
        root.present()?;
        Ok(())
    }

    fn lines<'a, X, Y>(
        &self,
        chart: &mut plotters::chart::ChartContext<'a, SVGBackend<'a>, plotters::prelude::Cartesian2d<X, Y>>,
    ) -> Outcome<()>
    where
        X: plotters::prelude::Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
        Y: plotters::prelude::Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
    {
        let label = |value: &f64| number(*value);
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(self.across).y_desc(self.up).x_labels(8).y_labels(8).max_light_lines(0);
        mesh.x_label_formatter(&label).y_label_formatter(&label).draw()?;
        for (index, (server, points)) in self.lines.iter().enumerate() {
            let style = Palette99::pick(index).stroke_width(2);
            chart
                .draw_series(LineSeries::new(points.iter().copied(), style))?
                .label(server)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
            chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, style.filled())))?;
        }
        chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
        Ok(())
    }
}
