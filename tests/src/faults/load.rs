//! Clients that ask all the time, through every gateway, and remember what came of each request.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use proto::v1::inference_service_client::InferenceServiceClient;
use tokio::{sync::watch, task::JoinSet};
use tonic::transport::{Channel, Endpoint};

use super::{
    ask::{Attempt, Outcome, Question, ask},
    cluster::Cluster,
    tenants::Tenant,
};

const WORDS: [&str; 3] =
    ["What does E-17 mean?", "Someone wrote E-17 in the report. What does that refer to?", "Hello! How are you today?"];
/// After a refusal, or when nobody was there.
const PAUSE: Duration = Duration::from_millis(40);
/// Longest that a busy machine may take for anything that the load waits for.
const PATIENCE: Duration = Duration::from_secs(90);

/// The questions, and what the answers are when nothing is wrong.
pub struct Questions {
    pub all: Vec<Question>,
    expected: Vec<String>,
}

/// Running clients.
pub struct Load {
    attempts: Arc<Mutex<Vec<Attempt>>>,
    clients: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Questions {
    /// Asks each of them once, one after the other, of an undisturbed deployment.
    pub async fn of(tenants: &[Tenant], cluster: &Cluster) -> Self {
        let all: Vec<_> = tenants
            .iter()
            .enumerate()
            .flat_map(|(tenant, Tenant { key, model, .. })| {
                WORDS.map(|words| Question { tenant, key: key.clone(), model: model.clone(), words })
            })
            .collect();
        let mut client = client(cluster, 0);
        let mut expected = Vec::new();
        for (at, question) in all.iter().enumerate() {
            let answer = ask(&mut client, at, question, 0).await;
            assert!(answer.finished(), "an undisturbed answer: {answer:?}");
            expected.push(answer.text);
        }
        Self { all, expected }
    }

    /// Whether what came is the answer, or its beginning where it did not come to its end or a limit ended it.
    pub fn agrees(&self, attempt: &Attempt) -> bool {
        let expected = &self.expected[attempt.question];
        match attempt.outcome {
            Outcome::Finished { by_limit: false, .. } => attempt.text == *expected,
            _ => expected.starts_with(&attempt.text),
        }
    }
}

impl Load {
    /// So many clients for each tenant; each goes to the gateways in turn.
    pub fn start(cluster: &Cluster, questions: &Arc<Questions>, tenants: usize, clients_each: usize) -> Self {
        let attempts = Arc::<Mutex<Vec<Attempt>>>::default();
        let (stop, stopped) = watch::channel(false);
        let gateways: Vec<_> = (0..cluster.gateways.len()).map(|number| client(cluster, number)).collect();
        let mut clients = JoinSet::new();
        for number in 0..tenants * clients_each {
            let (questions, gateways, stopped) = (Arc::clone(questions), gateways.clone(), stopped.clone());
            let attempts = Arc::clone(&attempts);
            clients.spawn(async move {
                let of_tenant = |(_, question): &(usize, &Question)| question.tenant == number % tenants;
                let own: Vec<_> = questions.all.iter().enumerate().filter(of_tenant).collect();
                let mut turn = number / tenants;
                while !*stopped.borrow() {
                    let (at, question) = own[turn % own.len()];
                    let gateway = turn % gateways.len();
                    let attempt = ask(&mut gateways[gateway].clone(), at, question, gateway).await;
                    let pause = !attempt.finished();
                    attempts.lock().expect("no client panicked").push(attempt);
                    if pause {
                        tokio::time::sleep(PAUSE).await;
                    }
                    turn += 1;
                }
            });
        }
        Self { attempts, clients, stop }
    }

    /// Waits for so many more finished answers that began after this moment.
    ///
    /// # Errors
    /// What was seen instead for a long time.
    pub async fn wait_for_answers(&self, count: usize) -> Result<(), String> {
        let from = Instant::now();
        loop {
            let (seen, last) = {
                let attempts = self.attempts();
                let since = attempts.iter().filter(|attempt| attempt.began > from);
                let last = since.clone().next_back().map(|attempt| format!("{:?}", attempt.outcome));
                (since.filter(|attempt| attempt.finished()).count(), last)
            };
            if seen >= count {
                return Ok(());
            }
            if from.elapsed() > PATIENCE {
                return Err(format!("{seen} of {count} answers in {PATIENCE:?}; the last attempt: {last:?}"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Lets every client finish its request, and returns all that came.
    pub async fn stop(mut self) -> Vec<Attempt> {
        self.stop.send_replace(true);
        while self.clients.join_next().await.is_some() {}
        std::mem::take(&mut *self.attempts())
    }

    fn attempts(&self) -> MutexGuard<'_, Vec<Attempt>> {
        self.attempts.lock().expect("no client panicked")
    }
}

/// Connects when it is used, and again when the connection was lost.
fn client(cluster: &Cluster, gateway: usize) -> InferenceServiceClient<Channel> {
    let url = format!("http://{}", cluster.gateways[gateway].address());
    let endpoint = Endpoint::from_shared(url).expect("an address").tcp_nodelay(true);
    InferenceServiceClient::new(endpoint.connect_timeout(Duration::from_secs(1)).connect_lazy())
}
