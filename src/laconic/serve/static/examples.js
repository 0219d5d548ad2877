// What a newcomer sees in one click.

// Article I, section 3, of the Constitution of the United States (in the public domain), without its second paragraph.
export const TEXT = {
  question: "Who can try an impeached president?",
  rate: 40,
  text: `The Senate of the United States shall be composed of two Senators from each State, chosen by the Legislature thereof, for six Years; and each Senator shall have one Vote.

No Person shall be a Senator who shall not have attained to the Age of thirty Years, and been nine Years a Citizen of the United States, and who shall not, when elected, be an Inhabitant of that State for which he shall be chosen.

The Vice President of the United States shall be President of the Senate, but shall have no Vote, unless they be equally divided.

The Senate shall chuse their other Officers, and also a President pro tempore, in the Absence of the Vice President, or when he shall exercise the Office of President of the United States.

The Senate shall have the sole Power to try all Impeachments. When sitting for that Purpose, they shall be on Oath or Affirmation. When the President of the United States is tried, the Chief Justice shall preside: And no Person shall be convicted without the Concurrence of two thirds of the Members present.

Judgment in Cases of Impeachment shall not extend further than to removal from Office, and disqualification to hold and enjoy any Office of honor, Trust or Profit under the United States: but the Party convicted shall nevertheless be liable and subject to Indictment, Trial, Judgment and Punishment, according to Law.`,
};

const LOG = `02:00:00 INFO import: starting the nightly import of berth bookings from the partner ports
02:00:01 INFO import: configuration was read from /etc/harbour/import.toml without any warnings
02:00:01 INFO import: there are 14 partner ports to be read, and 4 of them will be read at the same time
02:00:07 INFO import: Bergen has been read completely, 1,204 bookings were found and none was rejected
02:00:11 INFO import: Aarhus has been read completely, 873 bookings were found and none was rejected
02:00:19 INFO import: Gdynia has been read completely, 2,011 bookings were found and none was rejected
02:00:31 WARNING import: Rostock answered slowly (11.8 s); the limit for an answer is set to 12 s
02:00:43 ERROR import: Rostock did not answer within 12 s, which is why the import was stopped
Traceback (most recent call last):
  File "/srv/harbour/import.py", line 88, in run
    rows = client.fetch(port, timeout=settings.timeout)
  File "/srv/harbour/client.py", line 41, in fetch
    raise TimeoutError(f"{port} did not answer within {timeout} s")
TimeoutError: Rostock did not answer within 12 s
02:00:43 INFO import: what had been read so far was rolled back, so that no booking is counted twice
02:00:44 INFO import: the next attempt is going to be made tomorrow at 02:00, as it is every night`;

export const CHAT = {
  question: "",
  rate: 40,
  text: JSON.stringify(
    {
      model: "some-model",
      messages: [
        { role: "system", content: "You keep the harbour's booking system running. Be brief." },
        { role: "user", content: "The nightly import failed again. Please look into it." },
        {
          role: "assistant",
          content: null,
          tool_calls: [{ id: "c1", type: "function", function: { name: "read_log", arguments: '{"job": "import"}' } }],
        },
        { role: "tool", tool_call_id: "c1", content: LOG },
        { role: "user", content: "So what do I have to change?" },
      ],
    },
    null,
    2,
  ),
};
