mod machine;
mod orders;
mod owner;
mod transcripts;
